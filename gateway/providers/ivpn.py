"""IVPN: https://api.ivpn.net/v4/servers/stats has `servers`, with names instead of addresses."""

from collections.abc import Iterator
from ipaddress import ip_address

from gateway.providers.entries import Entry
from gateway.providers.server import Provider, Server


def read(document: Entry) -> Iterator[Server]:
    """Yield the active servers with a WireGuard name."""
    for server in document.all("servers"):
        hostname = server.member("hostnames").text("wireguard")
        if server.flag("is_active") and hostname and (key := server.key("wg_public_key")):
            yield Server(
                hostname=hostname,
                public_key=key,
                country=server.text("country"),
                city=server.text("city"),
                isp=server.text("isp"),
            )


IVPN = Provider(
    name="ivpn",
    title="IVPN",
    ports=(58237, 2049, 2050, 53, 30587, 41893, 48574),
    filters=("country", "city", "hostname", "isp"),
    url="https://api.ivpn.net/v4/servers/stats",
    read=read,
    resolvers=(ip_address("172.16.0.1"),),
)
