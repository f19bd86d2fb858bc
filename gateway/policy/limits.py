"""What a machine or a configuration keeps the gateway from enforcing: in words, with the remedy.

Each is shown by health, `gateway status` and the log, and explained in docs/known-issues.md. None
of them makes the gateway unhealthy: the tunnel carries what it should.
"""

from collections.abc import Iterator

from gateway.model import Config

DROP_NET_RAW = "give workloads `cap_drop: [NET_RAW]`"
"""The remedy for all that takes a packet socket, a raw socket or a mark."""

NO_GUARD = "packet sockets are not stopped"
"""How the limit begins of a kernel that cannot have the egress guard."""


def without_guard(missing: str, remedy: str) -> str:
    """Return the limit of a machine without the egress guard, because of what is `missing`."""
    return f"{NO_GUARD}: {missing}; {'; or '.join(dict.fromkeys((remedy, DROP_NET_RAW)))}"


def of_guard(*, routed: bool, in_advance: bool) -> Iterator[str]:
    """Yield the limits of an egress guard.

    It is `routed` if it can ask whether a frame was, and `in_advance` if it can guard an interface
    that is not there yet.
    """
    if not routed:
        yield (
            "the egress guard cannot ask whether a frame was routed (the kernel lacks "
            f"IP_ROUTE_CLASSID), so that who finds out its mark passes it; {DROP_NET_RAW}"
        )
    if not in_advance:
        yield (
            "an interface that appears later is closed to packet sockets a moment later (the "
            f"kernel's guard cannot wait for a name, as it can since Linux 6.16); {DROP_NET_RAW}"
        )


def of_kernel(*, xdp: bool) -> Iterator[str]:
    """Yield the limits of a kernel whatever the guard, such as having AF_XDP sockets (`xdp`)."""
    if xdp:
        yield (
            "AF_XDP sockets are not stopped (they send below every rule of a network namespace); "
            f"{DROP_NET_RAW}"
        )


def of_config(config: Config) -> Iterator[str]:
    """Yield the limits that the user has chosen. `config` is as loaded: no mark is drawn yet."""
    if any(tunnel.fwmark is not None for tunnel in config.tunnels):
        yield (
            "the firewall mark of the encrypted flow is the FwMark that was chosen, which "
            f"`ip rule` shows to everybody; leave FwMark out, or {DROP_NET_RAW}"
        )
