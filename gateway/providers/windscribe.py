"""Windscribe: https://assets.windscribe.com/serverlist/mob-v2/1/0 has regions, groups and nodes."""

from collections.abc import Iterator

from gateway.providers.entries import Entry
from gateway.providers.server import Provider, Server


def read(document: Entry) -> Iterator[Server]:
    """Yield the nodes of groups with a WireGuard key; WireGuard is at the third address."""
    for region in document.all("data"):
        for group in region.all("groups"):
            key = group.key("wg_pubkey")
            for node in group.all("nodes"):
                address = node.address("ip3")
                if key and address:
                    yield Server(
                        hostname=node.text("hostname"),
                        public_key=key,
                        addresses=(address,),
                        region=region.text("name"),
                        city=group.text("city"),
                    )


WINDSCRIBE = Provider(
    name="windscribe",
    title="Windscribe",
    ports=(1194, 53, 80, 123, 443, 65142),
    filters=("region", "city", "hostname"),
    url="https://assets.windscribe.com/serverlist/mob-v2/1/0",
    read=read,
    needs_preshared_key=True,
)
