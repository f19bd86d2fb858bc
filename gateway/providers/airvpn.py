"""AirVPN: https://airvpn.org/api/status/ has `servers`; all of them have one public key."""

from collections.abc import Iterator
from ipaddress import ip_address

from gateway.providers.entries import Entry
from gateway.providers.server import Provider, Server

PUBLIC_KEY = "PyLCXAQT8KkM4T+dUsOQfn+Ub3pGxfGlxkIApuig+hk="
"""What AirVPN's generator of configurations writes for every server."""


def read(document: Entry) -> Iterator[Server]:
    """Yield the servers that are well, with the first entry address of each family."""
    for server in document.all("servers"):
        addresses = server.addresses("ip_v4_in1", "ip_v6_in1")
        if server.text("health") == "ok" and addresses:
            yield Server(
                hostname=f"{server.text('country_code')}.vpn.airdns.org",
                public_key=PUBLIC_KEY,
                addresses=addresses,
                country=server.text("country_name"),
                region=server.text("continent"),
                city=server.text("location"),
                name=server.text("public_name"),
            )


AIRVPN = Provider(
    name="airvpn",
    title="AirVPN",
    ports=(1637, 47107),
    filters=("country", "region", "city", "name", "hostname"),
    url="https://airvpn.org/api/status/",
    read=read,
    needs_preshared_key=True,
    resolvers=(ip_address("10.128.0.1"),),
)
