"""Surfshark: https://api.surfshark.com/v4/server/clusters/generic is an array of clusters.

Each has a name instead of addresses.
"""

from collections.abc import Iterator
from ipaddress import ip_address

from gateway.providers.entries import Entry
from gateway.providers.server import Provider, Server


def read(document: Entry) -> Iterator[Server]:
    """Yield the clusters that have a WireGuard key."""
    for cluster in document.all():
        hostname = cluster.text("connectionName")
        if hostname and (key := cluster.key("pubKey")):
            yield Server(
                hostname=hostname,
                public_key=key,
                country=cluster.text("country"),
                region=cluster.text("region"),
                city=cluster.text("location"),
            )


SURFSHARK = Provider(
    name="surfshark",
    title="Surfshark",
    ports=(51820,),
    filters=("country", "region", "city", "hostname"),
    url="https://api.surfshark.com/v4/server/clusters/generic",
    read=read,
    resolvers=(ip_address("162.252.172.57"), ip_address("149.154.159.92")),
)
