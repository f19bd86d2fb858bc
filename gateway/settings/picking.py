"""Chooses between variables and a wg-quick file when both set a value of a tunnel.

The identity (keys, addresses, endpoint) comes from the file if it has it, unless a secret file of
one variable overrides it: a key of one source with an endpoint of another is nearly always a
mistake, and gluetun reads them in this order. The tuning (allowed IPs, MTU, keepalive, resolvers)
comes from the variable if it is set, because people set it to correct a file they were given.
"""

from dataclasses import replace
from typing import Final, TypeVar

from gateway.errors import Weight
from gateway.model import Address, Endpoint, NamedEndpoint
from gateway.model.frozen import frozen
from gateway.settings.findings import Findings
from gateway.settings.quickfiles import PeerValues, ReadFile
from gateway.settings.schema import Settings
from gateway.settings.servers import at, host_of
from gateway.settings.sourced import Kind, Origin, Sourced
from gateway.settings.sources import Variables, is_unread

T = TypeVar("T")

PEER_FIELDS: Final = (
    "wireguard_public_key",
    "wireguard_preshared_key",
    "wireguard_endpoint_ip",
    "wireguard_endpoint_port",
    "wireguard_endpoints",
    "wireguard_allowed_ips",
)
"""Variables that describe one peer."""

_MISSING: Final = {
    "wireguard_private_key": (
        "is not set; put the key in a file mounted at /run/secrets/wireguard_private_key, or "
        "mount a whole wg-quick file at /config/wg0.conf"
    ),
    "wireguard_addresses": (
        "is not set; write the tunnel's address as your provider gives it, such as 10.64.0.2/32"
    ),
    "wireguard_public_key": "is not set; write the public key of the server",
    "wireguard_endpoint_ip": (
        "is not set; write the address of the server, or your provider in VPN_SERVICE_PROVIDER"
    ),
    "wireguard_endpoint_port": "is not set; write the UDP port of the server, often 51820",
}
_MISSING_IN_FILE: Final = {
    "wireguard_private_key": ("PrivateKey", "has no PrivateKey in [Interface]; download it again"),
    "wireguard_addresses": ("Address", "has no Address in [Interface]; add the one you were given"),
    "wireguard_public_key": ("PublicKey", "has a [Peer] without PublicKey; add the server's"),
    "wireguard_endpoint_ip": (
        "Endpoint",
        (
            "has a [Peer] without Endpoint; the gateway is a client and needs the address of its "
            "server: add it, or use the file that the server made for this client"
        ),
    ),
}


@frozen
class Server:
    """The endpoint of a peer, whose two halves may come from different sources."""

    host: Sourced[Address | str]
    port: Sourced[int]

    @property
    def endpoint(self) -> Endpoint | NamedEndpoint:
        """The endpoint itself."""
        return at(self.host.value, self.port.value)


def split(endpoint: Sourced[Endpoint | NamedEndpoint]) -> Server:
    """Return both halves of an endpoint that comes from one source."""
    origin = endpoint.origin
    return Server(Sourced(host_of(endpoint.value), origin), Sourced(endpoint.value.port, origin))


@frozen
class Picker:
    """Chooses between the variables and one file, which may be missing."""

    variables: Variables
    file: ReadFile | None
    findings: Findings

    @property
    def values(self) -> Settings:
        """The variables."""
        return self.variables.values

    def without_peer_variables(self) -> "Picker":
        """Return a picker without the variables that describe one peer."""
        values = self.values.model_copy(update=dict.fromkeys(PEER_FIELDS))
        return replace(self, variables=replace(self.variables, values=values))

    def identity(
        self, variable: str, given: Sourced[T] | None, in_file: Sourced[T] | None
    ) -> Sourced[T] | None:
        """Pick a value of the identity: the file's, unless a secret file overrides it."""
        if given and given.origin.kind is Kind.SECRET_FILE:
            return self.stronger(variable, given, in_file)
        return self.stronger(variable, in_file, given)

    def tuning(
        self, variable: str, given: Sourced[T] | None, in_file: Sourced[T] | None
    ) -> Sourced[T] | None:
        """Pick a value of the tuning: the variable's, else the file's."""
        return self.stronger(variable, given, in_file, Weight.INFO)

    def stronger(
        self,
        variable: str,
        strong: Sourced[T] | None,
        weak: Sourced[T] | None,
        weight: Weight = Weight.WARNING,
    ) -> Sourced[T] | None:
        """Return the stronger of two values; report when they differ."""
        if strong and weak and strong.value != weak.value:
            self.findings.add(
                weight,
                variable,
                f"taken from {strong.origin.text}; {weak.origin.text} has a different value, "
                "which is not used",
            )
        return strong or weak

    def missing(self, field: str, head: Origin | None = None) -> None:
        """Report a missing value, unless it was given and could not be read.

        `head` is where the section of the file begins that should have it.
        """
        if field in self.variables.unreadable or is_unread(field, self.findings):
            return
        if not self.file:
            self.findings.problem(field.upper(), _MISSING[field])
        elif _MISSING_IN_FILE[field][0] not in self.file.unreadable:
            where = head.where if head else self.file.path
            self.findings.problem(where, _MISSING_IN_FILE[field][1])


def check_alone(variables: Variables, findings: Findings) -> None:
    """Refuse a single server together with a list of servers."""
    values = variables.values
    if values.wireguard_endpoints:
        for one in (values.wireguard_endpoint_ip, values.wireguard_endpoint_port):
            if one:
                findings.problem(
                    one.origin.where,
                    "is set in addition to WIREGUARD_ENDPOINTS; remove one of them",
                )


def key_of_first(values: Settings) -> Sourced[str] | None:
    """Return the first endpoint's key if every entry of `WIREGUARD_ENDPOINTS` has its own."""
    choices = values.wireguard_endpoints
    keys = [choice.public_key for choice in choices.value] if choices else []
    return Sourced(keys[0], choices.origin) if choices and keys[0] and all(keys) else None


def pick_server(pick: Picker, peer: PeerValues) -> Server | None:
    """Return the server of a peer: the first of the list, else the file's, else the variables'."""
    values = pick.values
    host, port = values.wireguard_endpoint_ip, values.wireguard_endpoint_port
    if choices := values.wireguard_endpoints:
        listed = Sourced(choices.value[0].endpoint, choices.origin)
        if peer.endpoint:
            pick.stronger("WIREGUARD_ENDPOINT_IP", listed, peer.endpoint)
        return split(listed)
    if peer.endpoint:
        return _files_server(pick, peer.endpoint, host, port)
    if host and port:
        return Server(host, port)
    if "wireguard_endpoints" in pick.variables.unreadable:
        return None
    if pick.file and not host and not port:
        pick.missing("wireguard_endpoint_ip", peer.head)
        return None
    without_file = replace(pick, file=None)
    if not host:
        without_file.missing("wireguard_endpoint_ip")
    if not port:
        without_file.missing("wireguard_endpoint_port")
    return None


def _files_server(
    pick: Picker,
    in_file: Sourced[Endpoint | NamedEndpoint],
    host: Sourced[Address | str] | None,
    port: Sourced[int] | None,
) -> Server:
    """Return a file's server; a variable may give the address for a server name."""
    files = split(in_file)
    origin = (host or port or in_file).origin
    given = Server(host or files.host, port or files.port)
    if Kind.SECRET_FILE in {given.host.origin.kind, given.port.origin.kind}:
        return Server(
            pick.identity("WIREGUARD_ENDPOINT_IP", host, files.host) or files.host,
            pick.identity("WIREGUARD_ENDPOINT_PORT", port, files.port) or files.port,
        )
    if isinstance(in_file.value, NamedEndpoint) and not isinstance(given.endpoint, NamedEndpoint):
        pick.findings.info(
            in_file.origin.where,
            f"Endpoint {in_file.value} is reached at {given.endpoint}, as the variables say",
        )
        return given
    pick.stronger("WIREGUARD_ENDPOINT_IP", in_file, Sourced(given.endpoint, origin))
    return files
