"""NordVPN: https://api.nordvpn.com/v2/servers?limit=0 has `servers`, and tables they refer to."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

from gateway.providers.entries import Entry
from gateway.providers.server import Provider, Server

WIREGUARD = "wireguard_udp"


def read(document: Entry) -> Iterator[Server]:
    """Yield the servers that are online and have a WireGuard key."""
    locations = _by_id(document.all("locations"))
    groups = _by_id(document.all("groups"))
    technologies = _by_id(document.all("technologies"))
    wireguard = {
        number for number, it in technologies.items() if it.text("identifier") == WIREGUARD
    }
    for server in document.all("servers"):
        address = server.address("station")
        key = _key(server, wireguard)
        if server.text("status") != "online" or address is None or not key:
            continue
        place = next(_referred(server, "location_ids", locations), Entry(None)).member("country")
        memberships = list(_referred(server, "group_ids", groups))
        kinds = [(it.member("type").text("identifier"), it.text("title")) for it in memberships]
        yield Server(
            hostname=server.text("hostname"),
            public_key=key,
            addresses=(address,),
            country=place.text("name"),
            region=next((title for kind, title in kinds if kind == "regions"), ""),
            city=place.member("city").text("name"),
            categories=tuple(title for kind, title in kinds if kind != "regions" and title),
        )


def _by_id(entries: Iterator[Entry]) -> dict[int, Entry]:
    found = ((entry.number("id"), entry) for entry in entries)
    return {number: entry for number, entry in found if number is not None}


def _referred(server: Entry, name: str, table: dict[int, Entry]) -> Iterator[Entry]:
    """Yield the entries of `table` whose numbers are in the array `name`."""
    for element in server.all(name):
        number = element.number()
        if number in table:
            yield table[number]


def _key(server: Entry, wireguard: set[int]) -> str:
    for technology in server.all("technologies"):
        if technology.number("id") in wireguard:
            for item in technology.all("metadata"):
                if item.text("name") == "public_key":
                    return item.key("value")
    return ""


NORDVPN = Provider(
    name="nordvpn",
    title="NordVPN",
    ports=(51820,),
    filters=("country", "region", "city", "hostname", "categories"),
    url="https://api.nordvpn.com/v2/servers?limit=0",
    read=read,
    addresses=(ip_interface("10.5.0.2/32"),),
    resolvers=(ip_address("103.86.96.100"), ip_address("103.86.99.100")),
)
