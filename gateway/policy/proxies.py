"""Firewall rules for the gateway's own proxies: what their user may send (P19).

A client says where a proxy connects to. So what the proxy itself begins leaves through the tunnel,
whose rules come before these, or is refused. Names are asked at the gateway's resolver, by UDP
alone: by TCP a client could reach it through the proxy.
"""

from collections.abc import Iterator
from ipaddress import ip_network

from gateway.model import Config
from gateway.model.proxies import PROXY_USER
from gateway.policy.flows import KNOWN
from gateway.policy.rules import (
    Accept,
    Chain,
    ChainRule,
    CtDirection,
    Family,
    Ports,
    Reject,
    Rule,
    Transport,
)
from gateway.policy.upstreams import OURS

NAMES = Ports.one(53)


def confined(family: Family, config: Config, loopback: str, *, ends: bool) -> Iterator[ChainRule]:
    """Yield the rules for the proxies of `config`, if there are any.

    They come before those of `loopback` and of every hole. Answers to clients pass on loopback,
    and by the rules of the listed input ports. `ends`: a TCP connection that is refused ends, as it
    does only with a tunnel (P15).
    """
    if config.http_proxy is None and config.socks_proxy is None:
        return
    if family is Family.IPV4:
        yield (
            Chain.OUTPUT,
            Rule(
                why="P19 a proxy asks for names",
                verdict=Accept(),
                out_interface=loopback,
                destination=ip_network(OURS),
                protocol=Transport.UDP,
                destination_ports=NAMES,
                user=PROXY_USER,
            ),
        )
    yield (
        Chain.OUTPUT,
        Rule(
            why="P19 a proxy answers a workload",
            verdict=Accept(),
            out_interface=loopback,
            protocol=Transport.TCP,
            user=PROXY_USER,
            ct_states=KNOWN,
            ct_direction=CtDirection.REPLY,
        ),
    )
    for out_interface, direction in ((loopback, None), (None, CtDirection.ORIGINAL)):
        for protocol in (Transport.TCP, None):
            yield (
                Chain.OUTPUT,
                Rule(
                    why="P19 a proxy reaches the tunnel and nothing else",
                    verdict=Reject(tcp_reset=protocol is Transport.TCP),
                    out_interface=out_interface,
                    protocol=protocol,
                    syn=protocol is Transport.TCP and not ends,
                    user=PROXY_USER,
                    ct_direction=direction,
                ),
            )
