"""What the kernel holds, read by this command and compared with what it reckons by itself.

Rules, guard and routes of a connected gateway follow from its configuration, from what the
namespace looks like, and from the server that health tells. Two marks do not, which the gateway has
drawn by chance: they are taken from the rules, and with them everything else has to fit.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

from gateway.commands.verify.lines import Line
from gateway.errors import GatewayError, ProcessError
from gateway.firewall import Firewall
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.render import TABLE
from gateway.firewall.nft.table import Nft
from gateway.model import (
    INTERFACE,
    Address,
    Candidate,
    CandidatePeer,
    Config,
    Endpoint,
    Facts,
    Tunnel,
)
from gateway.policy import marks
from gateway.policy.evidence import Pulse
from gateway.policy.firewall import ruleset_for
from gateway.policy.flows import ENCRYPTED, PASSED
from gateway.policy.guard import guard_for
from gateway.policy.limits import NO_GUARD
from gateway.policy.routing import fitted, routing_for
from gateway.policy.states import Connected, Turn
from gateway.system import process
from gateway.system.features import has_ipv6
from gateway.system.namespace import Namespace
from gateway.system.network import Network

TWIN = "asked"
"""Ends the names of nft's dormant tables here: the gateway may be comparing at the same time."""

NUMBER = "(0x[0-9a-f]+)"
FLOW_MARK = re.compile(rf'mark {NUMBER}\b.*comment "{ENCRYPTED}"')
GUARD_MARK = re.compile(
    rf'comment "{PASSED}".*--set-xmark {NUMBER}/|meta mark set {NUMBER} comment "{PASSED}"'
)
"""How the rules with the marks read, as iptables-save and as nft list them."""

MOST_TOLD = 3
"""How many differences are told; the rest are counted."""


@dataclass(frozen=True)
class Held:
    """What was found: `inside` are the addresses of the tunnel's interface.

    `facts` have the guard's mark. `tunnel` is the connected one, with the addresses of its
    endpoints and its real mark; None where none of the configuration fits.
    """

    inside: frozenset[Address]
    facts: Facts
    tunnel: Tunnel | None


def look(config: Config, told: Mapping[str, object], network: Network) -> Held:
    """Find out what is connected, by the configuration, by what health `told`, and by the kernel.

    Raises GatewayError.
    """
    inside = frozenset(a for a in network.addresses_of(INTERFACE) if not a.is_link_local)
    mark, sign = marks_in(_listed(str(told.get("firewall", ""))))
    facts = Namespace(network, sign).facts()
    marked = marks.with_secret_mark(config, mark or 0)
    candidates = [fitted(candidate, facts) for candidate in marked.tunnels]
    tunnel = connected_with(candidates, str(told.get("endpoint", "")), inside)
    return Held(inside, facts, tunnel)


def compared(config: Config, told: Mapping[str, object], held: Held) -> Iterator[Line]:
    """Compare rules, guard and routes in the kernel with those that belong to `held`."""
    tunnel, facts = held.tunnel, held.facts
    inside = ", ".join(sorted(map(str, held.inside))) or "none"
    if tunnel is None:
        server = told.get("endpoint") or "none"
        unknown = f"{inside}; no server of the configuration has these and the endpoint {server}"
        yield Line("address inside the tunnel", unknown, ok=False)
        yield Line("rules and routes, read back", "not known what they should be", ok=False)
        return
    yield Line("address inside the tunnel", inside, ok=True)
    rules = ruleset_for(Connected(Turn((tunnel,)), tunnel, 0.0, Pulse()), config, facts)
    name = str(told.get("firewall", ""))
    yield _line(f"rules of {name}, read back", lambda: _firewall(name).verify(rules))
    if NO_GUARD not in str(told.get("limits")):
        wanted = guard_for(rules, facts) if facts.guard_mark else None
        yield _line(
            "egress guard, read back",
            lambda: Guard.find(Nft(twin=TWIN)).verify(wanted) if wanted else ("it has no mark",),
        )
    namespace = Namespace(Network(INTERFACE), facts.guard_mark)
    routing = routing_for(tunnel, config, facts)
    yield _line("routes and policy rules, read back", lambda: namespace.routing_drift(routing))
    for uplink in facts.uplinks:
        settings = partial(namespace.device_drift, uplink.name)
        yield _line(f"settings of {uplink.name}, read back", settings)


def connected_with(
    candidates: Iterable[Candidate], told: str, inside: Collection[Address]
) -> Tunnel | None:
    """Return the candidate with the endpoints `told` by health and the addresses `inside`.

    Its endpoints are addresses then, also where the configuration has names.
    """
    endpoints = [e for e in map(_endpoint, told.split(", ")) if e]
    for candidate in candidates:
        peers = tuple(_placed(peer, n, endpoints) for n, peer in enumerate(candidate.peers))
        found = replace(candidate, peers=tuple(peer for peer in peers if peer))
        is_whole = len(found.peers) == len(peers) and set(found.endpoints) == set(endpoints)
        if is_whole and {address.ip for address in candidate.addresses} == set(inside):
            return found.resolved({})
    return None


def marks_in(listing: str) -> tuple[int | None, int | None]:
    """Return the marks of the encrypted flow and of what passed, from a listing of the rules."""
    flow, passed = FLOW_MARK.search(listing), GUARD_MARK.search(listing)
    return (
        int(flow[1], 16) if flow else None,
        int(passed[1] or passed[2], 16) if passed else None,
    )


def _placed(peer: CandidatePeer, number: int, endpoints: list[Endpoint]) -> CandidatePeer | None:
    """Return `peer` with its endpoint among `endpoints`, which are in the order of the peers."""
    wanted = peer.endpoint
    for endpoint in (*endpoints[number : number + 1], *endpoints):
        if endpoint == wanted:
            return peer
        if not isinstance(wanted, Endpoint) and endpoint.port == wanted.port:
            return replace(peer, endpoint=endpoint)
    return None


def _endpoint(text: str) -> Endpoint | None:
    host, _, port = text.rpartition(":")
    try:
        return Endpoint(ip_address(host.strip("[]")), int(port))
    except ValueError:  # a name, while it is looked up
        return None


def _listed(firewall: str) -> str:
    """Return the rules as their own tool lists them, or nothing where they are not there."""
    commands = ["iptables-legacy-save", "ip6tables-legacy-save"][: 2 if has_ipv6() else 1]
    if firewall == NftablesFirewall.name:
        commands = [f"nft list table {TABLE}"]
    with suppress(ProcessError):  # the comparison says why
        return "\n".join(process.run(command.split()) for command in commands)
    return ""


def _firewall(name: str) -> Firewall:
    if name == NftablesFirewall.name:
        return NftablesFirewall(Nft(twin=TWIN))
    # Imported here because its libraries may not be there, where nobody needs them.
    from gateway.firewall.xtables.tables import IptablesFirewall  # noqa: PLC0415

    return IptablesFirewall.find()


def _line(name: str, differences: Callable[[], tuple[str, ...]]) -> Line:
    try:
        found = differences()
    except GatewayError as err:
        return Line(name, str(err), ok=False)
    more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    told = "; ".join(found[:MOST_TOLD]) + more
    return Line(name, told or "as they should be", ok=not found)
