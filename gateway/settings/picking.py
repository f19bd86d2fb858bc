"""Which source a value of a tunnel is taken from, where variables and a wg-quick file both say it.

Who you are and whom you talk to (keys, addresses, endpoint) come from the file where it says them,
unless a secret file of its own says otherwise: a key of one and an endpoint of another source are
nearly always a mistake, and gluetun reads them in this order. How to talk (allowed IPs, MTU,
keepalive, resolvers) comes from the variable where it is set, because that is what people set to
correct a file they were given.
"""

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from gateway.errors import Weight
from gateway.model import NamedEndpoint
from gateway.settings.findings import Findings
from gateway.settings.quickfiles import Part, ReadFile, Value
from gateway.settings.servers import at, host_of
from gateway.settings.sources import Variables

ENDPOINT: Final = "endpoint"
"""The name of an endpoint as a whole: one line of a file, two variables."""

PARTS: Final = ("wireguard_endpoint_ip", "wireguard_endpoint_port")
"""The variables that make one endpoint together."""

PEER_FIELDS: Final = (
    "wireguard_public_key",
    "wireguard_preshared_key",
    "wireguard_endpoint_ip",
    "wireguard_endpoint_port",
    "wireguard_endpoints",
    "wireguard_allowed_ips",
)
"""Variables that are about one peer."""

_MISSING: Final = {
    "wireguard_private_key": (
        "is not set; put the key into a file mounted at /run/secrets/wireguard_private_key, or "
        "mount a whole wg-quick file at /config/wg0.conf"
    ),
    "wireguard_addresses": (
        "is not set; write the tunnel's address as your provider gives it, such as 10.64.0.2/32"
    ),
    "wireguard_public_key": "is not set; write the public key of the server",
    "wireguard_endpoint_ip": "is not set; write the address of the server",
    "wireguard_endpoint_port": "is not set; write the UDP port of the server, often 51820",
}
_MISSING_IN_FILE: Final = {
    "wireguard_private_key": ("PrivateKey", "has no PrivateKey in [Interface]; download it again"),
    "wireguard_addresses": ("Address", "has no Address in [Interface]; add the one you were given"),
    "wireguard_public_key": ("PublicKey", "has a [Peer] without PublicKey; add the server's"),
    ENDPOINT: (
        "Endpoint",
        (
            "has a [Peer] without Endpoint; the gateway is a client and needs the address of its "
            "server: add it, or use the file that the server made for this client"
        ),
    ),
}


@dataclass
class Picker:
    """Chooses between the variables and one file, remembers what it chose and what it missed."""

    variables: Variables
    file: ReadFile | None
    findings: Findings
    origins: dict[str, str] = field(default_factory=dict)
    lacks: bool = False

    def without_peer_variables(self) -> "Picker":
        """Return a picker that leaves out the variables which are about one peer."""
        values = self.variables.values.model_copy(update=dict.fromkeys(PEER_FIELDS))
        return replace(self, variables=replace(self.variables, values=values), origins={})

    def place(self, variable: str) -> str:
        """Return what to name in a message: the file, or without one the variable."""
        return self.file.path if self.file else variable

    def in_secret_file(self, name: str) -> bool:
        """Say whether a variable was given in a secret file of its own."""
        given = self.variables.given.get(name)
        return given is not None and given.in_file

    def server_place(self, variable: str) -> str:
        """Return what to name in a message about a server: the list of servers, if there is one."""
        listed = self.variables.values.wireguard_endpoints
        return "WIREGUARD_ENDPOINTS" if listed else self.place(variable)

    def variable(self, name: str) -> Value | None:
        """Return the value of a variable, or None when it is not set."""
        value = getattr(self.variables.values, name)
        return None if value in (None, ()) else Value(value, self.variables.origin(name))

    def identity(self, name: str, part: Part) -> Any:
        """Pick who you are or whom you talk to: the file's, unless a secret file says otherwise."""
        variable, in_file = self.variable(name), part.get(name)
        if self.in_secret_file(name):
            return self.first(name, variable, in_file)
        return self.first(name, in_file, variable)

    def tuning(self, name: str, part: Part) -> Any:
        """Pick how to talk: the variable's, else the file's."""
        return self.first(name, self.variable(name), part.get(name), Weight.INFO)

    def first(
        self,
        name: str,
        strong: Value | None,
        weak: Value | None,
        weight: Weight = Weight.WARNING,
    ) -> Any:
        """Pick the stronger of two values, and tell it when they are not the same."""
        chosen = strong or weak
        if strong and weak and strong.value != weak.value:
            told = "WIREGUARD_ENDPOINT_IP" if name == ENDPOINT else name.upper()
            self.findings.add(
                weight,
                told,
                f"taken from {strong.where}; {weak.where} says something else and is not used",
            )
        if chosen:
            self.origins[name] = chosen.where
        return chosen.value if chosen else None

    def require(self, name: str, value: object, part: Part = MappingProxyType({})) -> None:
        """Tell that a value is missing, unless it is there but could not be read.

        `part` says in which section of the file it is missing.
        """
        if value is not None:
            return
        self.lacks = True
        if not self.file:
            if name not in self.variables.unreadable:
                self.findings.wrong(name.upper(), _MISSING[name])
        else:
            key, message = _MISSING_IN_FILE[name]
            if key not in self.file.unreadable and name not in self.variables.unreadable:
                where = part["head"].where if "head" in part else self.file.path
                self.findings.wrong(where, message)


def check_alone(variables: Variables, findings: Findings) -> None:
    """Refuse one server beside the list of them."""
    for name in PARTS:
        if name in variables.given:
            findings.wrong(
                variables.where(name), "is set beside WIREGUARD_ENDPOINTS; remove one of them"
            )


def key_of_first(pick: Picker) -> str | None:
    """Return the first endpoint's own key when every one of `WIREGUARD_ENDPOINTS` has one."""
    choices = pick.variables.values.wireguard_endpoints or ()
    keys = [choice.public_key for choice in choices]
    return keys[0] if all(keys) and keys else None


def pick_endpoint(pick: Picker, part: Part) -> Any:
    """Return the endpoint of a peer: first of the list, else the file's, else the variables'."""
    choices = pick.variable("wireguard_endpoints")
    if choices:
        first = Value(choices.value[0].endpoint, choices.where)
        return pick.first(ENDPOINT, first, part.get(ENDPOINT))
    place, port = pick.variable("wireguard_endpoint_ip"), pick.variable("wireguard_endpoint_port")
    if ENDPOINT in part:
        return _files_endpoint(pick, part[ENDPOINT], place, port)
    if place and port:
        return at(place.value, port.value)
    pick.lacks = True
    if "wireguard_endpoints" in pick.variables.unreadable:
        return None
    if pick.file and not place and not port:
        pick.require(ENDPOINT, None, part)
    else:
        without_file = replace(pick, file=None)
        without_file.require("wireguard_endpoint_ip", place)
        without_file.require("wireguard_endpoint_port", port)
    return None


def _files_endpoint(pick: Picker, in_file: Value, place: Value | None, port: Value | None) -> Any:
    """Return a file's endpoint; where it is a name, the address that a variable says for it."""
    if not place and not port:
        return pick.first(ENDPOINT, in_file, None)
    if any(pick.in_secret_file(name) for name in PARTS):
        return _secret_endpoint(pick, in_file, place, port)
    written = at(
        place.value if place else host_of(in_file.value),
        port.value if port else in_file.value.port,
    )
    if not isinstance(in_file.value, NamedEndpoint) or isinstance(written, NamedEndpoint):
        variable = Value(written, (place or port or in_file).where)
        return pick.first(ENDPOINT, in_file, variable)
    pick.findings.tell(
        in_file.where, f"Endpoint {in_file.value} is reached at {written}, as the variables say"
    )
    pick.origins["wireguard_endpoint_ip"] = (place or in_file).where
    pick.origins["wireguard_endpoint_port"] = (port or in_file).where
    return written


def _secret_endpoint(pick: Picker, in_file: Value, place: Value | None, port: Value | None) -> Any:
    """Return a file's endpoint with the address or the port of a secret file instead of its own."""
    address = Value(host_of(in_file.value), in_file.where)
    number = Value(in_file.value.port, in_file.where)
    part = dict(zip(PARTS, (address, number), strict=True))
    for name, variable in zip(PARTS, (place, port), strict=True):
        strong, weak = (
            (variable, part[name]) if pick.in_secret_file(name) else (part[name], variable)
        )
        part[name] = Value(pick.first(name, strong, weak), (strong or part[name]).where)
    return at(*(part[name].value for name in PARTS))
