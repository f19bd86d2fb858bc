"""Why no port is forwarded, for people: codes as texts, with what to do."""

from collections.abc import Sequence

from gateway.model.forwarding import ForwarderKind, Forwarding
from gateway.model.frozen import frozen
from gateway.policy.mapped import Granted, PortProblem

_PROTON = (
    "make a new WireGuard file at account.protonvpn.com with NAT-PMP (Port Forwarding) switched "
    "on, for a server that is marked P2P"
)
_OTHER = (
    "ask your provider whether this server forwards ports, and set VPN_PORT_FORWARDING_GATEWAY if "
    "another host in the tunnel does"
)
_LATER = "wait, or choose another server: it has no port for you now"


@frozen
class Found:
    """What a server has given: ports with their times, and why there are not more.

    `problem` is a code, "" for none; `text` and `remedy` say the same for people.
    """

    ports: tuple[Granted, ...] = ()
    problem: str = ""
    text: str = ""
    remedy: str = ""


TEXTS: dict[PortProblem, str] = {
    PortProblem.SILENT: "{server} does not answer at UDP port 5351 in the tunnel",
    PortProblem.NOT_LISTENING: "{server} has nothing that listens at UDP port 5351 in the tunnel",
    PortProblem.UNSENT: "the requests to {server} cannot be sent into the tunnel",
    PortProblem.UNSUPPORTED_VERSION: "{server} has neither NAT-PMP nor PCP",
    PortProblem.NOT_AUTHORIZED: "{server} does not forward ports for this key",
    PortProblem.NETWORK_FAILURE: "{server} has no address that it could forward ports of",
    PortProblem.NO_RESOURCES: "{server} has no port left",
    PortProblem.UNSUPPORTED: "{server} does not forward ports of this kind",
    PortProblem.REFUSED: "{server} refuses to forward a port",
    PortProblem.TOO_SHORT: "{server} gives a port for less than 10 s",
    PortProblem.PORTS_DIFFER: "{server} gives another port for UDP than for TCP",
    PortProblem.FEWER: "{server} gives fewer ports than VPN_PORT_FORWARDING_PORTS_COUNT",
}

REMEDIES: dict[PortProblem, str] = {
    PortProblem.UNSENT: "add {server} to WIREGUARD_ALLOWED_IPS, if that does not have everything",
    PortProblem.NO_RESOURCES: _LATER,
    PortProblem.TOO_SHORT: _LATER,
    PortProblem.PORTS_DIFFER: _LATER,
    PortProblem.FEWER: "set VPN_PORT_FORWARDING_PORTS_COUNT to 1",
}


def explained(
    ports: Sequence[Granted], problem: PortProblem | None, wanted: Forwarding, server: str
) -> Found:
    """Return what `server` has given, with the words for `problem`."""
    if problem is None:
        return Found(tuple(ports))
    by_default = _PROTON if wanted.kind is ForwarderKind.PROTONVPN else _OTHER
    remedy = REMEDIES.get(problem, by_default).format(server=server)
    return Found(tuple(ports), problem.value, TEXTS[problem].format(server=server), remedy)
