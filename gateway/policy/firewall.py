"""Which packets pass in which state: docs/security.md as code.

`ruleset_for` is the whole security argument. Each rule names the promise that it keeps. Three
things hold in every state. The policy of the filter chains is DROP. Every rule that accepts names
its interface, so an unknown interface is closed from its first frame. A packet leaves because of
its source and destination, never only because it belongs to an established flow.
"""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network
from types import MappingProxyType

from gateway.model import Config, Network, Tunnel
from gateway.policy import passage
from gateway.policy.facts import Facts, Uplink
from gateway.policy.flows import (
    encrypted_flow,
    guard_marks,
    in_tunnel,
    neighbours,
    no_mark_on_loopback,
    no_routes_over_loopback,
    plain_only,
)
from gateway.policy.holes import has_holes, holes, open_in
from gateway.policy.question import forged_answers, question, transfer
from gateway.policy.rules import (
    Accept,
    Chain,
    ChainRule,
    Drop,
    Family,
    Reject,
    Rule,
    Ruleset,
    Transport,
)
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Query,
    Resolving,
    State,
    Stopping,
    Transfer,
)
from gateway.policy.ways import uplink_to

LOOPBACK = "lo"

DOCKER_RESOLVER = IPv4Network("127.0.0.11/32")
"""Docker's resolver: it forwards queries from the host's namespace, where we have no rules."""


def ruleset_for(state: State, config: Config, facts: Facts) -> Ruleset:
    """Return the complete ruleset of both families for `state` in the namespace of `facts`."""
    listed, resolvers = open_in(state, config)

    def served(family: Family) -> Iterator[ChainRule]:
        for uplink in facts.uplinks:
            yield from holes(family, uplink, listed, resolvers, ends=isinstance(state, Connected))

    def entries(family: Family) -> Iterator[ChainRule]:
        return _on_uplinks(family, state, facts, served)

    if isinstance(state, Connected):
        up = state
        return _both(entries, early=lambda family: _early(family, up, config), refused=_refused)
    closes = isinstance(state, Locked | Stopping)
    return _both(
        entries,
        lambda family: _first(family, state, facts),
        _nothing if closes else lambda family: _of_proxies(family, config, ends=False),
    )


def ruleset_in_vault(state: State, config: Config, hole: Uplink | None) -> Ruleset:
    """Return the complete ruleset for `state` of a vault, which has the tunnel and no uplink.

    Nothing but the tunnel and the listed holes is accepted there, so a namespace in which only a
    way out is prepared is closed. `hole` is the link for the holes, if any is listed.
    """
    listed, resolvers = open_in(state, config)

    def entries(family: Family) -> Iterable[ChainRule]:
        is_open = has_holes(listed)
        ends = isinstance(state, Connected)
        return (
            passage.inside(family, hole, listed, resolvers, ends=ends) if hole and is_open else ()
        )

    if isinstance(state, Connected):
        up = state
        return _both(entries, early=lambda family: _in_tunnel(family, up, config), refused=_refused)
    return _both(entries)


def ruleset_outside_vault(
    state: State, config: Config, facts: Facts, hole: Uplink | None
) -> Ruleset:
    """Return the complete ruleset for `state` of the namespace that has the uplinks of a vault.

    The tunnel is elsewhere, so connected or not, nothing but the encrypted flow leaves or enters.
    The listed holes are forwarded, but for what ends here (`passage.divided`).
    """
    listed, resolvers = open_in(state, config)
    forwarded, own = passage.divided(listed)

    def served(family: Family) -> Iterator[ChainRule]:
        if hole is not None and has_holes(forwarded):
            yield from passage.outside(family, hole, forwarded, resolvers, facts)
        for uplink in facts.uplinks:
            yield from holes(family, uplink, own, (), ends=isinstance(state, Connected))

    return _both(
        lambda family: _on_uplinks(family, state, facts, served),
        lambda family: _first(family, state, facts),
    )


def essence(state: State) -> tuple[object, ...]:
    """Return what the rules of `state` depend on: equal results mean equal rulesets."""
    match state:
        case Locked() | Stopping():
            return ("closed",)
        case Paused():
            return ("closed" if state.refused else "paused",)
        case Resolving():
            return ("resolving", state.query)
        case Fetching():
            return ("fetching", state.query, state.transfer)
        case Connecting():
            return ("connecting", state.tunnel)
        case Connected():
            return ("connected", state.tunnel, state.leases)


def closed() -> Ruleset:
    """Return the ruleset that rejects everything except loopback; it needs no configuration."""
    return _both(_nothing)


ChainRules = Callable[[Family], Iterable[ChainRule]]


def _nothing(_family: Family) -> Iterable[ChainRule]:
    return ()


Refusal = Callable[[Chain, str], Iterable[ChainRule]]


def _refused_for_now(chain: Chain, why: str) -> Iterator[ChainRule]:
    """Yield the rules that reject at once what begins, and let TCP connections wait (P12, P15).

    A reset ends a connection for good, and an ICMP error does not (RFC 5927, section 4).
    """
    opening = Rule(why=why, verdict=Reject(tcp_reset=True), protocol=Transport.TCP, syn=True)
    yield chain, opening
    yield chain, Rule(why=why, verdict=Reject())


def _both(
    entries: ChainRules,
    first: ChainRules = _nothing,
    early: ChainRules = _nothing,
    refused: Refusal = _refused_for_now,
) -> Ruleset:
    """Return the ruleset of `entries` for each family, between the rules that every chain has.

    `first` comes before all of them, `early` before those for loopback; `refused` makes the rules
    for what none of them accepts.
    """
    chains = {
        f"ipv{family.value}": _by_chain(
            (
                *first(family),
                *_framed(family, early(family), entries(family)),
                *refused(Chain.OUTPUT, "P1 nothing else leaves"),
            )
        )
        for family in Family
    }
    return Ruleset(**{name: MappingProxyType(rules) for name, rules in chains.items()})


def _by_chain(entries: Iterable[ChainRule]) -> dict[Chain, tuple[Rule, ...]]:
    listed = tuple(dict.fromkeys(entries))
    return {chain: tuple(rule for where, rule in listed if where is chain) for chain in Chain}


def _framed(
    family: Family, early: Iterable[ChainRule], entries: Iterable[ChainRule]
) -> Iterator[ChainRule]:
    """Yield the first rules of every chain, then `entries`, then the last but what leaves."""
    if family is Family.IPV4:
        for chain in (Chain.INPUT, Chain.OUTPUT):
            yield from _refused(chain, "P10 no names via Docker", destination=DOCKER_RESOLVER)
    yield from early
    yield from no_routes_over_loopback(family, LOOPBACK)
    yield Chain.INPUT, Rule(why="loopback", verdict=Accept(), in_interface=LOOPBACK)
    yield Chain.OUTPUT, Rule(why="loopback", verdict=Accept(), out_interface=LOOPBACK)
    yield from entries
    yield Chain.INPUT, Rule(why="P1 nothing else enters", verdict=Drop())
    yield Chain.FORWARD, Rule(why="P11 nothing is forwarded", verdict=Drop())


def _refused(chain: Chain, why: str, destination: Network | None = None) -> Iterator[ChainRule]:
    """Yield the rules that reject with an answer, so that applications do not wait (P12)."""
    for protocol, verdict in ((Transport.TCP, Reject(tcp_reset=True)), (None, Reject())):
        yield chain, Rule(why=why, verdict=verdict, protocol=protocol, destination=destination)


def _first(family: Family, state: State, facts: Facts) -> Iterator[ChainRule]:
    """Yield the rules that come before those of every state, loopback's too."""
    match state:
        case Fetching(transfer=Transfer() as flow) if uplink_to(flow.server, facts):
            yield from forged_answers(family, flow.server, LOOPBACK, "P18 a forged answer")
        case Resolving(query=Query() as query) | Fetching(query=Query() as query):
            if query.resolver.is_loopback:
                yield from question(family, LOOPBACK, query)
            elif uplink_to(query.resolver, facts):
                yield from forged_answers(family, query.resolver, LOOPBACK)
        case Connecting() | Connected():
            yield from no_mark_on_loopback(LOOPBACK, state.tunnel)
        case _:
            pass


def _on_uplinks(
    family: Family, state: State, facts: Facts, served: ChainRules
) -> Iterator[ChainRule]:
    """Yield the rules for the gateway's own flows and for what is `served`, with their frame."""
    own, open_ = list(_own_flows(family, state, facts)), list(served(family))
    if own or open_ or isinstance(state, Connecting | Connected):
        yield from plain_only(facts.uplinks)
        yield from own
        yield from guard_marks(facts)
        yield from open_


def _own_flows(family: Family, state: State, facts: Facts) -> Iterator[ChainRule]:
    """Yield the rules for what the gateway itself sends through an uplink, and for the answers."""
    match state:
        case Fetching(transfer=Transfer() as flow):
            if uplink := uplink_to(flow.server, facts):
                yield from transfer(family, uplink.name, flow)
                yield from neighbours(family, uplink)
        case Resolving(query=Query() as query) | Fetching(query=Query() as query):
            uplink = None if query.resolver.is_loopback else uplink_to(query.resolver, facts)
            if uplink:
                yield from question(family, uplink.name, query)
                yield from neighbours(family, uplink)
        case Connecting() | Connected():
            yield from _encrypted(family, state.tunnel, facts)
        case _:
            pass


def _encrypted(family: Family, tunnel: Tunnel, facts: Facts) -> Iterator[ChainRule]:
    """Yield the rules for the encrypted flow."""
    for endpoint in tunnel.endpoints:
        uplink = uplink_to(endpoint.address, facts)
        if uplink is not None and family.has(endpoint.address):
            yield from encrypted_flow(uplink, endpoint, tunnel)
            yield from neighbours(family, uplink)


def _early(family: Family, state: Connected, config: Config) -> Iterator[ChainRule]:
    """Yield the rules for the tunnel, that which keeps its mark off loopback, those of proxies.

    The tunnel's come before those of other interfaces, because most packets are the tunnel's.
    """
    yield from _in_tunnel(family, state, config)
    yield from no_mark_on_loopback(LOOPBACK, state.tunnel)
    yield from _of_proxies(family, config, ends=True)


def _of_proxies(family: Family, config: Config, *, ends: bool) -> Iterable[ChainRule]:
    """Return the rules for proxies; many have none, and do not load what makes them."""
    if config.http_proxy is None and config.socks_proxy is None:
        return ()
    from gateway.policy.proxies import confined  # noqa: PLC0415 - seldom needed

    return confined(family, config, LOOPBACK, ends=ends)


def _in_tunnel(family: Family, state: Connected, config: Config) -> Iterator[ChainRule]:
    leases = tuple(it for it in state.leases if it.version == family.value)
    for address in state.tunnel.addresses:
        if family.has(address):
            yield from in_tunnel(family, address, config.vpn_input_ports, leases)
