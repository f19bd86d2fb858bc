"""Private Internet Access: https://serverlist.piaservers.net/vpninfo/servers/v7 has `regions`.

A signature follows the list. Its servers answer only a key that was registered with them, with a
token for the user's name and password. How, the provider's scripts show:
https://github.com/pia-foss/manual-connections. How they forward ports is in
`private_internet_access_ports`.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address
from urllib.parse import urlencode

from gateway.model import Address
from gateway.providers.entries import LAST_PORT, Entry, is_host
from gateway.providers.private_internet_access_ports import AUTHORITY, PORTS
from gateway.providers.server import BadAnswerError, KeyService, Provider, Registered, Server

LONGEST_TOKEN = 512
"""Characters; a token of 2026 has 128."""
MOST_RESOLVERS = 3
"""How many a resolver file may list (MAXNS, resolv.conf(5))."""
PRIVATE = (
    *(IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")),
    IPv4Network("100.64.0.0/10"),
)
"""Where an address in the tunnel may be (RFC 1918, RFC 6598): any other would hide a real host."""


def read(document: Entry) -> Iterator[Server]:
    """Yield the WireGuard servers of the regions that are not offline."""
    for region in document.all("regions"):
        if region.flag("offline"):
            continue
        for server in region.member("servers").all("wg"):
            address, name = server.address("ip"), server.text("cn")
            if address is not None and is_host(name):
                yield Server(
                    hostname=region.text("dns"),
                    public_key="",
                    addresses=(address,),
                    country=region.text("country"),
                    region=region.text("name"),
                    name=name,
                    port_forward=region.flag("port_forward") is True,
                )


def _form(user: str, password: str) -> str:
    return urlencode({"username": user, "password": password})


def _query(token: str, key: str) -> str:
    return urlencode({"pt": token, "pubkey": key})


def _token(document: Entry) -> str:
    token = document.long_text("token", LONGEST_TOKEN)
    if not token.isascii() or not token.isalnum():
        raise BadAnswerError("the answer to the login has no token in the known form")
    return token


def _answer(document: Entry, name: str, address: Address) -> Registered:
    if document.text("status") != "OK":
        raise BadAnswerError("the server did not take the key")
    key, port = document.key("server_key"), document.number("server_port")
    own, gateway = _in_tunnel(document, "peer_ip"), _in_tunnel(document, "server_vip")
    if not key or port is None or not 0 < port <= LAST_PORT or own is None:
        raise BadAnswerError("the server's answer is not in the known form")
    resolvers = tuple(_resolvers(document, own))[:MOST_RESOLVERS]
    return Registered(name, address, key, port, own, resolvers, gateway)


def _in_tunnel(document: Entry, name: str) -> IPv4Address | None:
    """Return an address that can be one of the tunnel's, None where there is none."""
    try:
        address = IPv4Address(document.text(name).removesuffix("/32"))
    except ValueError:
        return None
    return address if any(address in network for network in PRIVATE) else None


def _resolvers(document: Entry, own: Address) -> Iterator[Address]:
    for entry in document.all("dns_servers"):
        address = entry.address()
        if isinstance(address, IPv4Address) and address != own:
            yield address


PRIVATE_INTERNET_ACCESS = Provider(
    name="private internet access",
    title="Private Internet Access",
    ports=(1337,),
    filters=("country", "region", "name", "hostname", "port_forward"),
    url="https://serverlist.piaservers.net/vpninfo/servers/v7",
    read=read,
    resolvers=(ip_address("10.0.0.243"), ip_address("10.0.0.242")),
    other_names=("pia",),
    keys=KeyService(
        login="https://www.privateinternetaccess.com/api/client/v2/token",
        port=1337,
        target="/addKey",
        authority=AUTHORITY,
        form=_form,
        query=_query,
        read_token=_token,
        read_answer=_answer,
    ),
    forwards=PORTS,
)
