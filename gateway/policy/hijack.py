"""Which questions of workloads go to the gateway's own resolver, whichever one they are sent to.

A packet is redirected when its flow begins, and only then (nf_nat_inet_fn). So what is not
redirected is refused after that: a flow that is older than the redirection. What a socket that is
bound to the tunnel's interface sends is redirected, but its route does not lead to loopback: it is
dropped on the way. Nothing here lets a packet pass that the ruleset refuses: the rules that accept
end a chain of this table.
"""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network

from gateway.model import Address, Config, Tunnel
from gateway.model.frozen import frozen
from gateway.model.name_server import RESOLVER_USER
from gateway.model.proxies import PROXY_USER
from gateway.policy.flows import ENCRYPTED
from gateway.policy.rules import (
    Accept,
    CtDirection,
    Drop,
    Family,
    Ports,
    Reject,
    Rule,
    Transport,
    Verdict,
)
from gateway.policy.states import Connected, Connecting, State
from gateway.policy.upstreams import OURS, OURS_BY_IPV6, REDIRECTED, upstreams_of

LOOPBACK = "lo"
PORT = Ports.one(53)

Rules = tuple[tuple[Family, Rule], ...]


@frozen
class Redirection:
    """Which packets get this machine's loopback address as their destination, and which none.

    `spared` are neither redirected nor refused, `left` are refused without being redirected.
    `redirected` get the port REDIRECTED. `refused` are what comes without having been redirected,
    `astray` what was and would leave through another link than loopback all the same.
    """

    spared: Rules
    redirected: Rules
    refused: Rules
    astray: Rules
    left: Rules = ()


def redirection_for(state: State, config: Config) -> Redirection | None:
    """Return what is redirected in `state`, where `config` has DNS_HIJACK=on.

    None in a state without a tunnel: nothing passes then but a question of the gateway's own
    (P10).
    """
    if not isinstance(state, Connecting | Connected):
        return None
    tunnel = state.tunnel
    asked = [it.address for it in upstreams_of(tunnel, config) if it.port == PORT.first]
    has_proxies = config.http_proxy is not None or config.socks_proxy is not None
    return Redirection(
        _of_both(lambda family: _spared(family, tunnel)),
        _of_both(_redirected),
        _of_both(lambda family: _refused(filter(family.has, asked), has_proxies=has_proxies)),
        _of_both(_astray),
        _of_both(lambda _: _of_proxies(Accept(), Accept()) if has_proxies else ()),
    )


def _of_both(rules: Callable[[Family], Iterable[Rule]]) -> Rules:
    return tuple((family, rule) for family in Family for rule in rules(family))


def _spared(family: Family, tunnel: Tunnel) -> Iterator[Rule]:
    """Yield what stays as it is: what does not leave, our resolver's questions, WireGuard at 53.

    A client of a server here may use port 53 itself: what answers it has to pass. In a vault, the
    source port of the encrypted flow is free, so a workload could have it; the mark is secret.
    """
    yield Rule(why="loopback", verdict=Accept(), out_interface=LOOPBACK)
    yield Rule(why="P10 an answer", verdict=Accept(), ct_direction=CtDirection.REPLY)
    yield Rule(why="P10 our resolver asks others", verdict=Accept(), user=RESOLVER_USER)
    for endpoint in tunnel.endpoints:
        if family.has(endpoint.address) and endpoint.port == PORT.first:
            yield Rule(
                why=ENCRYPTED,
                verdict=Accept(),
                destination=ip_network(endpoint.address),
                protocol=Transport.UDP,
                source_ports=Ports.one(tunnel.listen_port),
                destination_ports=PORT,
                mark=tunnel.fwmark,
            )


def _redirected(_family: Family) -> Iterator[Rule]:
    for protocol in (Transport.UDP, Transport.TCP):
        yield Rule(
            why="P10 our resolver answers",
            verdict=Accept(),
            protocol=protocol,
            destination_ports=PORT,
        )


def _of_proxies(tcp: Verdict, udp: Verdict) -> Iterator[Rule]:
    """Yield what a proxy's client asks at port 53 of an address that it chose.

    The proxy itself asks ours on loopback. Redirected, the client would get there too (P19).
    """
    for protocol, verdict in ((Transport.TCP, tcp), (Transport.UDP, udp)):
        yield Rule(
            why="P19 no proxy asks others",
            verdict=verdict,
            protocol=protocol,
            destination_ports=PORT,
            user=PROXY_USER,
        )


def _refused(asked: Iterable[Address], *, has_proxies: bool) -> Iterator[Rule]:
    """Yield what was not redirected and may not leave, but for the resolvers that ours has `asked`.

    The kernel ends a TCP connection after its socket is closed, and such packets have no user.
    """
    if has_proxies:
        yield from _of_proxies(Reject(tcp_reset=True), Reject())
    for address in asked:
        yield Rule(
            why="P10 our resolver asks others",
            verdict=Accept(),
            destination=ip_network(address),
            protocol=Transport.TCP,
            destination_ports=PORT,
        )
    for protocol in (Transport.UDP, Transport.TCP):
        yield Rule(
            why="P10 no other resolver",
            verdict=Reject(tcp_reset=protocol is Transport.TCP),
            protocol=protocol,
            destination_ports=PORT,
        )


def _astray(family: Family) -> Iterator[Rule]:
    ours = ip_network(OURS if family is Family.IPV4 else OURS_BY_IPV6)
    for protocol in (Transport.UDP, Transport.TCP):
        yield Rule(
            why="P10 no other resolver",
            verdict=Drop(),
            destination=ours,
            protocol=protocol,
            destination_ports=Ports.one(REDIRECTED),
        )
