"""How variables and wg-quick files become tunnels, and what of both is taken.

Who you are and whom you talk to (keys, addresses, endpoint) come from the file where it says them,
unless a secret file of its own says otherwise: a key of one and an endpoint of another source are
nearly always a mistake, and gluetun reads them in this order. How to talk (allowed IPs, MTU,
keepalive, resolvers) comes from the variable where it is set, because that is what people set to
correct a file they were given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

from gateway.model import EVERYTHING, Address, Endpoint, Interface, Peer, Secret, Tunnel
from gateway.settings.findings import Findings, joined
from gateway.settings.networks import covers_family, simplified
from gateway.settings.quickfiles import Part, ReadFile, Value
from gateway.settings.sources import Variables

DEFAULT_KEEPALIVE: Final = 25
_FIRST_IPV6_MTU: Final = 1280
_PEER_FIELDS: Final = (
    "wireguard_public_key",
    "wireguard_preshared_key",
    "wireguard_endpoint_ip",
    "wireguard_endpoint_port",
    "wireguard_endpoints",
    "wireguard_allowed_ips",
)
_MISSING: Final = {
    "wireguard_private_key": "is not set; put the key into a file mounted at "
    "/run/secrets/wireguard_private_key, or mount a whole wg-quick file at /config/wg0.conf",
    "wireguard_addresses": "is not set; write the tunnel's address as your provider gives it, such "
    "as 10.64.0.2/32",
    "wireguard_public_key": "is not set; write the public key of the server",
    "wireguard_endpoint_ip": "is not set; write the address of the server",
    "wireguard_endpoint_port": "is not set; write the UDP port of the server, often 51820",
}
_MISSING_IN_FILE: Final = {
    "wireguard_private_key": "has no PrivateKey",
    "wireguard_addresses": "has no Address",
    "wireguard_public_key": "has a [Peer] without PublicKey",
    "endpoint": "has a [Peer] without Endpoint; a gateway is a client, and needs to know where "
    "its server is",
}
_FILE_KEYS: Final = {
    "wireguard_private_key": "PrivateKey",
    "wireguard_addresses": "Address",
    "wireguard_public_key": "PublicKey",
    "endpoint": "Endpoint",
}


@dataclass(frozen=True)
class Draft:
    """One candidate: the tunnel, its resolvers, and where its values came from."""

    tunnel: Tunnel
    dns: tuple[Address, ...]
    origins: Mapping[str, str]
    dns_from_file: bool = False


@dataclass
class _Picker:
    """Chooses between the variables and one file, and remembers what it chose."""

    variables: Variables
    file: ReadFile | None
    findings: Findings
    origins: dict[str, str] = field(default_factory=dict)
    lacks: bool = False

    def variable(self, name: str) -> Value | None:
        value = getattr(self.variables.values, name)
        if value is None or value == ():
            return None
        return Value(value, self.variables.origin(name))

    def identity(self, name: str, part: Part) -> Any:
        variable = self.variable(name)
        given = self.variables.given.get(name)
        first = (
            (variable, part.get(name)) if given and given.in_file else (part.get(name), variable)
        )
        return self.first(name, *first)

    def tuning(self, name: str, part: Part) -> Any:
        return self.first(name, self.variable(name), part.get(name))

    def first(self, name: str, strong: Value | None, weak: Value | None) -> Any:
        chosen = strong or weak
        if strong and weak and strong.value != weak.value:
            self.findings.warn(
                name.upper(),
                f"taken from {strong.where}; {weak.where} says something else and is not used",
            )
        if chosen:
            self.origins[name] = chosen.where
        return chosen.value if chosen else None

    def require(self, name: str, value: Any) -> None:
        """Tell that a value is missing, unless it is there but could not be read."""
        if value is not None:
            return
        self.lacks = True
        if self.file:
            if _FILE_KEYS[name] not in self.file.unreadable:
                self.findings.wrong(self.file.path, _MISSING_IN_FILE[name])
        elif name not in self.variables.unreadable:
            self.findings.wrong(name.upper(), _MISSING[name])


def build(variables: Variables, files: Sequence[ReadFile], findings: Findings) -> tuple[Draft, ...]:
    """Return the candidates in order of preference; none, with problems told, if none is whole."""
    if variables.values.wireguard_endpoints:
        _check_endpoints_alone(variables, files, findings)
    drafts = [_draft(variables, file, findings) for file in files or (None,)]
    return tuple(each for draft in drafts if draft for each in _with_endpoints(draft, variables))


def _check_endpoints_alone(
    variables: Variables, files: Sequence[ReadFile], findings: Findings
) -> None:
    for name in ("wireguard_endpoint_ip", "wireguard_endpoint_port"):
        if name in variables.given:
            findings.wrong(
                variables.where(name), "is set beside WIREGUARD_ENDPOINTS; remove one of them"
            )
    if len(files) > 1:
        findings.wrong(
            "WIREGUARD_ENDPOINTS",
            f"is set beside {len(files)} wg-quick files; they are the list already: remove it",
        )


def _draft(variables: Variables, file: ReadFile | None, findings: Findings) -> Draft | None:
    pick = _Picker(variables, file, findings)
    interface: Part = file.interface if file else {}
    private_key = pick.identity("wireguard_private_key", interface)
    addresses = pick.identity("wireguard_addresses", interface)
    mtu = pick.tuning("wireguard_mtu", interface)
    dns = pick.tuning("dns_address", _without_search_domains(interface, findings)) or ()
    pick.require("wireguard_private_key", private_key)
    pick.require("wireguard_addresses", addresses)
    parts = file.peers if file else ({},)
    if len(parts) > 1:
        _refuse_peer_variables(variables, file, findings)
    peers = [_peer(pick, part, alone=len(parts) == 1) for part in parts]
    if pick.lacks or not private_key or not addresses or not parts:
        return None
    tunnel = Tunnel(
        private_key,
        _distinct(addresses, pick.origins["wireguard_addresses"], findings),
        tuple(peer for peer in peers if peer),
        **{name: interface[name].value for name in ("listen_port", "fwmark")
           if name in interface and interface[name].value},
        mtu=mtu,
    )  # fmt: skip
    _check(tunnel, pick)
    from_file = (
        "dns_address" in interface
        and pick.origins.get("dns_address") != "default"
        and (pick.variable("dns_address") is None)
    )
    return Draft(tunnel, dns, pick.origins, dns_from_file=from_file)


def _without_search_domains(interface: Part, findings: Findings) -> Part:
    if "dns_address" not in interface:
        return {}
    entry = interface["dns_address"]
    domains = [one for one in entry.value if isinstance(one, str)]
    if domains:
        findings.tell(
            entry.where, f"the search domains {joined(domains)} are dropped: they leak names"
        )
    addresses = tuple(one for one in entry.value if not isinstance(one, str))
    return {"dns_address": Value(addresses, entry.where)} if addresses else {}


def _refuse_peer_variables(variables: Variables, file: ReadFile | None, findings: Findings) -> None:
    for name in _PEER_FIELDS:
        if name in variables.given and file:
            findings.wrong(
                variables.where(name),
                f"does not say which of the {len(file.peers)} peers in {file.path} it is for; "
                "remove it",
            )


def _peer(pick: _Picker, part: Part, *, alone: bool) -> Peer | None:
    given = pick if alone else _Picker(
        Variables(pick.variables.values.model_copy(update=dict.fromkeys(_PEER_FIELDS)), {}),
        pick.file, pick.findings,
    )  # fmt: skip
    public_key = given.identity("wireguard_public_key", part)
    preshared_key: Secret | None = given.identity("wireguard_preshared_key", part)
    endpoint = _endpoint(given, part)
    keepalive = pick.tuning("wireguard_persistent_keepalive_interval", part)
    allowed = given.tuning("wireguard_allowed_ips", part)
    if public_key is None:
        choices = given.variables.values.wireguard_endpoints or ()
        if choices and all(choice.public_key for choice in choices):
            public_key = choices[0].public_key
    given.require("wireguard_public_key", public_key)
    pick.lacks = pick.lacks or given.lacks
    if (
        allowed is None
        and not alone
        and "AllowedIPs" not in (pick.file.unreadable if pick.file else ())
    ):
        where = part[""].where if "" in part else "AllowedIPs"
        pick.findings.wrong(
            where, "has no AllowedIPs; with several peers each says which are its own"
        )
    if public_key is None or endpoint is None:
        return None
    where = given.origins.get("wireguard_allowed_ips", "WIREGUARD_ALLOWED_IPS")
    return Peer(
        public_key,
        endpoint,
        EVERYTHING if allowed is None else simplified(allowed, where, pick.findings),
        preshared_key,
        DEFAULT_KEEPALIVE if keepalive is None else keepalive,
    )


def _endpoint(pick: _Picker, part: Part) -> Any:
    """Return the endpoint of a peer: the first of the list, the file's, or the two variables'."""
    choices = pick.variable("wireguard_endpoints")
    if choices:
        first = Value(choices.value[0].endpoint, choices.where)
        return pick.first("endpoint", first, part.get("endpoint"))
    if "endpoint" not in part and "wireguard_endpoints" in pick.variables.unreadable:
        pick.lacks = True
        return None
    ip, port = pick.variable("wireguard_endpoint_ip"), pick.variable("wireguard_endpoint_port")
    if "endpoint" in part:
        in_file: Endpoint = part["endpoint"].value
        written = Endpoint(
            ip.value if ip else in_file.address, port.value if port else in_file.port
        )
        variable = Value(written, (ip or port or part["endpoint"]).where)
        return pick.first("endpoint", part["endpoint"], variable)
    if pick.file and not ip and not port:
        pick.require("endpoint", None)
        return None
    for name, value in (("wireguard_endpoint_ip", ip), ("wireguard_endpoint_port", port)):
        if value is None:
            pick.lacks = True
            if name not in pick.variables.unreadable:
                pick.findings.wrong(name.upper(), _MISSING[name])
    if ip is None or port is None:
        return None
    pick.origins["endpoint"] = ip.where
    return Endpoint(ip.value, port.value)


def _with_endpoints(draft: Draft, variables: Variables) -> tuple[Draft, ...]:
    """Return the draft once for each of `WIREGUARD_ENDPOINTS`, or as it is without any."""
    choices = variables.values.wireguard_endpoints
    if not choices or len(draft.tunnel.peers) != 1:
        return (draft,)
    peer = draft.tunnel.peers[0]
    peers = [
        replace(peer, endpoint=choice.endpoint, public_key=choice.public_key or peer.public_key)
        for choice in choices
    ]
    return tuple(replace(draft, tunnel=replace(draft.tunnel, peers=(one,))) for one in peers)


def _distinct(
    addresses: tuple[Interface, ...], where: str, findings: Findings
) -> tuple[Interface, ...]:
    distinct = tuple({address.ip: address for address in reversed(addresses)}.values())[::-1]
    if len(distinct) < len(addresses):
        findings.tell(where, "an address stands twice; once is enough")
    return distinct


def _check(tunnel: Tunnel, pick: _Picker) -> None:
    """Refuse what contradicts itself within one tunnel."""
    findings = pick.findings
    where = pick.file.path if pick.file else "WIREGUARD_ADDRESSES"
    if tunnel.has_family(6) and tunnel.mtu is not None and tunnel.mtu < _FIRST_IPV6_MTU:
        findings.wrong(
            pick.file.path if pick.file else "WIREGUARD_MTU",
            f"an MTU of {tunnel.mtu} is too small for the tunnel's IPv6 address; write at least "
            f"{_FIRST_IPV6_MTU}, or leave the IPv6 address out",
        )
    own = {address.ip for address in tunnel.addresses}
    for peer in tunnel.peers:
        if peer.endpoint.address in own:
            findings.wrong(
                where, f"the server's address {peer.endpoint.address} is the tunnel's own address"
            )
        if peer.public_key == tunnel.private_key.reveal():
            findings.wrong(
                pick.file.path if pick.file else "WIREGUARD_PUBLIC_KEY",
                "is the private key; write the server's public key here",
            )
    _check_peers(tunnel, pick)
    _tell_coverage(tunnel, pick)


def _check_peers(tunnel: Tunnel, pick: _Picker) -> None:
    where = pick.file.path if pick.file else "WIREGUARD_ALLOWED_IPS"
    for one, other in combinations(tunnel.peers, 2):
        if one.public_key == other.public_key:
            pick.findings.wrong(where, "two peers have the same PublicKey; make them one [Peer]")
        for mine in one.allowed_ips:
            for its in other.allowed_ips:
                if mine.version == its.version and mine.overlaps(its):
                    pick.findings.wrong(
                        where,
                        f"AllowedIPs {mine} and {its} of two peers overlap; several peers are one "
                        "tunnel only when each has destinations of its own. For servers to choose "
                        "from, make a file of each",
                    )


def _tell_coverage(tunnel: Tunnel, pick: _Picker) -> None:
    allowed = tuple(network for peer in tunnel.peers for network in peer.allowed_ips)
    where = pick.origins.get("wireguard_allowed_ips", pick.file.path if pick.file else "")
    if where in {"", "environment"}:
        where = "WIREGUARD_ALLOWED_IPS"
    if any(tunnel.has_family(v) and not covers_family(allowed, v) for v in (4, 6)):
        pick.findings.warn(
            where, f"only {joined(allowed)} go into the tunnel; everything else is refused"
        )
    for version in (4, 6):
        if not tunnel.has_family(version):
            pick.findings.tell(
                pick.origins["wireguard_addresses"],
                f"the tunnel has no IPv{version} address, so that IPv{version} is refused",
            )
