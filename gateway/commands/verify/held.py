"""What the kernel holds, read by this command and compared with what it computes by itself.

The rules, guard and routes of a connected gateway follow from its configuration, from the
namespace, and from the server that health names. Two marks do not: the gateway draws them at
random. They are read from the rules, and everything else has to fit them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.commands.verify.answer import Answer
from gateway.commands.verify.lines import Line
from gateway.commands.verify.places import Places
from gateway.errors import FirewallError, GatewayError
from gateway.firewall.marks import Marks
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.translation import TranslationTable
from gateway.model import INTERFACE, Address, Candidate, CandidatePeer, Config, Endpoint, Tunnel
from gateway.model.frozen import frozen
from gateway.policy import marks
from gateway.policy.dns import with_addresses
from gateway.policy.evidence import Pulse
from gateway.policy.facts import Facts
from gateway.policy.guard import guard_for
from gateway.policy.link import fitted
from gateway.policy.states import Connected, Turn
from gateway.policy.wanted import Inside, Wanted, wanted_in
from gateway.system.namespace import Namespace
from gateway.system.passage import VethPassage

if TYPE_CHECKING:
    from gateway.firewall.xtables.firewall import IptablesFirewall

TWIN = "asked"
"""Ends the names of nft's dormant tables here: the gateway may be comparing at the same time."""

MOST_SHOWN = 3
"""How many differences are shown; the rest are counted."""


@frozen
class Held:
    """What was found: `inside` are the addresses of the tunnel's interface.

    `facts` include the guard's mark. `tunnel` is the connected one, with the addresses of its
    endpoints and its real mark; None if no candidate of the configuration fits.
    """

    inside: frozenset[Address]
    facts: Facts
    tunnel: Tunnel | None


def look(config: Config, answer: Answer, places: Places) -> Held:
    """Return what is connected, from the configuration, the health `answer` and the kernel.

    Raises GatewayError.
    """
    found = places.links_of_workloads.addresses_of(INTERFACE)
    inside = frozenset(address for address in found if not address.is_link_local)
    flow, passed = _marks(answer.firewall)
    network = Namespace(places.uplinks, passed)
    network.have_tunnel_in(places.of_workloads)
    facts = network.facts()
    marked = marks.with_secret_mark(config, flow or 0)
    candidates = [fitted(candidate, facts) for candidate in marked.tunnels]
    tunnel = connected_with(candidates, answer.endpoints, inside)
    if tunnel and answer.listen_port:  # another one than the configuration's after an outage
        tunnel = replace(tunnel, listen_port=answer.listen_port)
    return Held(inside, facts, tunnel)


def compared(config: Config, answer: Answer, held: Held, places: Places) -> Iterator[Line]:
    """Compare rules, guard and routes in the kernel with those that belong to `held`."""
    tunnel, facts = held.tunnel, held.facts
    inside = ", ".join(sorted(map(str, held.inside))) or "none"
    if tunnel is None:
        servers = ", ".join(map(str, answer.endpoints)) or "none"
        unknown = f"{inside}; no server of the configuration has these and the endpoint {servers}"
        yield Line("address inside the tunnel", unknown, ok=False)
        yield Line("rules and routes, read back", "not known what they should be", ok=False)
        return
    yield Line("address inside the tunnel", inside, ok=True)
    state = Connected(Turn((tunnel,)), tunnel, 0.0, Pulse(), leases=answer.leases)
    wanted = wanted_in(state, config, facts, vault=places.wanted())
    name = answer.firewall
    yield _line(f"rules of {name}, read back", lambda: _firewall(name).verify(wanted.rules))
    if answer.guard:
        guarded = guard_for(wanted.rules, facts) if facts.guard_mark else None
        yield _line(
            "egress guard, read back",
            lambda: Guard.find(Nft(twin=TWIN)).verify(guarded) if guarded else ("it has no mark",),
        )
    namespace = Namespace(places.uplinks, facts.guard_mark)
    yield _line(
        "routes and policy rules, read back", lambda: namespace.routing_drift(wanted.routing)
    )
    if wanted.redirection:
        yield _line("redirection of questions, read back", lambda: _redirected(wanted, places))
    if wanted.ports:
        yield _line("redirection of forwarded ports, read back", lambda: _ports(wanted, places))
    if wanted.inside:
        yield from _compared_inside(wanted.inside, [it.name for it in facts.uplinks], places)
    for uplink in facts.uplinks:
        settings = partial(namespace.device_drift, uplink.name)
        yield _line(f"settings of {uplink.name}, read back", settings)


def _redirected(wanted: Wanted, places: Places) -> tuple[str, ...]:
    from gateway.firewall.nft.hijack import HijackTable  # noqa: PLC0415 - few have one

    return HijackTable(Nft(twin=TWIN, netns=places.of_workloads)).verify(wanted.redirection)


def _ports(wanted: Wanted, places: Places) -> tuple[str, ...]:
    from gateway.firewall.nft.port_table import PortTable  # noqa: PLC0415 - few have one

    return PortTable(Nft(twin=TWIN, netns=places.of_workloads)).verify(wanted.ports)


def _compared_inside(wanted: Inside, uplinks: list[str], places: Places) -> Iterator[Line]:
    """Compare what belongs to a vault, and what leads there."""
    links, hole = places.links_of_workloads, wanted.hole
    firewall = NftablesFirewall(Nft(twin=TWIN, netns=places.of_workloads))
    yield _line("rules of the vault, read back", lambda: firewall.verify(wanted.rules))
    namespace = Namespace(links)
    yield _line(
        "routes and policy rules of the vault, read back",
        lambda: namespace.routing_drift(wanted.routing),
    )
    if hole:
        passage = VethPassage(places.uplinks, links)
        yield _line("link to the vault, read back", lambda: passage.faults(hole, uplinks))
    table = TranslationTable(Nft(twin=TWIN))
    yield _line("translation of addresses, read back", lambda: table.verify(wanted.translation))


def connected_with(
    candidates: Iterable[Candidate], endpoints: tuple[Endpoint, ...], inside: Collection[Address]
) -> Tunnel | None:
    """Return the candidate with the `endpoints` that health reports and the addresses `inside`.

    Names in the configuration have become addresses then.
    """
    for candidate in candidates:
        peers = tuple(_placed(peer, n, endpoints) for n, peer in enumerate(candidate.peers))
        found = replace(candidate, peers=tuple(peer for peer in peers if peer))
        is_whole = len(found.peers) == len(peers) and set(found.endpoints) == set(endpoints)
        if is_whole and {address.ip for address in candidate.addresses} == set(inside):
            return with_addresses(found, {})
    return None


def _placed(
    peer: CandidatePeer, number: int, endpoints: tuple[Endpoint, ...]
) -> CandidatePeer | None:
    """Return `peer` with its endpoint among `endpoints`, which are in the order of the peers."""
    wanted = peer.endpoint
    for endpoint in (*endpoints[number : number + 1], *endpoints):
        if endpoint == wanted:
            return peer
        if not isinstance(wanted, Endpoint) and endpoint.port == wanted.port:
            return replace(peer, endpoint=endpoint)
    return None


def _marks(firewall: str) -> Marks:
    """Return the marks in the rules, none if they cannot be read: the comparison reports that."""
    try:
        return _firewall(firewall).marks()
    except FirewallError:
        return Marks(None, None)


def _firewall(name: str) -> "NftablesFirewall | IptablesFirewall":
    if name == NftablesFirewall.name:
        return NftablesFirewall(Nft(twin=TWIN))
    # Imported here because its libraries may be missing if nothing else needs them.
    from gateway.firewall.xtables.firewall import IptablesFirewall  # noqa: PLC0415

    return IptablesFirewall.find()


def _line(name: str, differences: Callable[[], tuple[str, ...]]) -> Line:
    try:
        found = differences()
    except GatewayError as err:
        return Line(name, str(err), ok=False)
    more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    shown = "; ".join(found[:MOST_SHOWN]) + more
    return Line(name, shown or "as they should be", ok=not found)
