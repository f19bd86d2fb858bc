"""Mullvad: https://api.mullvad.net/www/relays/all/ is an array of relays."""

from collections.abc import Iterator
from ipaddress import ip_address

from gateway.providers.entries import Entry
from gateway.providers.server import Provider, Server


def read(document: Entry) -> Iterator[Server]:
    """Yield the active WireGuard relays."""
    for relay in document.all():
        addresses = relay.addresses("ipv4_addr_in", "ipv6_addr_in")
        usable = relay.flag("active") and relay.text("type") == "wireguard"
        if usable and addresses and (key := relay.key("pubkey")):
            yield Server(
                hostname=relay.text("hostname"),
                public_key=key,
                addresses=addresses,
                country=relay.text("country_name"),
                city=relay.text("city_name"),
                isp=relay.text("provider"),
                owned=relay.flag("owned") is True,
            )


MULLVAD = Provider(
    name="mullvad",
    title="Mullvad",
    ports=(51820,),
    any_port=True,
    filters=("country", "city", "hostname", "isp", "owned"),
    url="https://api.mullvad.net/www/relays/all/",
    read=read,
    resolvers=(ip_address("10.64.0.1"),),
)
