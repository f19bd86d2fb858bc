"""What a machine or a configuration keeps the gateway from enforcing: in words, with the remedy.

Each is shown by health, `gateway status` and the log, and explained in docs/known-issues.md. None
of them makes the gateway unhealthy: the tunnel carries what it should.
"""

from collections.abc import Iterator

from gateway.model import Config
from gateway.policy.rules import Family

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


def without_queues(missing: str, remedy: str = DROP_NET_RAW) -> str:
    """Return the limit of a machine where AF_XDP sockets are not stopped, because of `missing`."""
    return f"AF_XDP sockets are not stopped: {missing}; {remedy}"


def blind_to_extra_headers(family: Family) -> str:
    """Return the limit of a kernel whose legacy tables cannot ask for `Rule.extra_headers`."""
    what, module = {
        Family.IPV4: ("IPv4 options, source routes among them,", "xt_u32"),
        Family.IPV6: ("IPv6 extension headers, routing headers among them,", "ip6t_ipv6header"),
    }[family]
    return (
        f"{what} are not refused (the kernel lacks {module}): a router in a listed LAN subnet that"
        f" honours them would carry a packet out; load {module} on the host (modprobe {module}),"
        " or use FIREWALL_BACKEND=nftables"
    )


def of_config(config: Config) -> Iterator[str]:
    """Yield the limits that the user has chosen. `config` is as loaded: no mark is drawn yet."""
    if any(tunnel.fwmark is not None for tunnel in config.tunnels):
        yield (
            "the firewall mark of the encrypted flow is the FwMark that was chosen, which "
            f"`ip rule` shows to everybody; leave FwMark out, or {DROP_NET_RAW}"
        )


def of_resolvers(config: Config, problem: str) -> Iterator[str]:
    """Yield the limit of a container that cannot keep its resolvers, because of `problem`.

    It matters where one of them is to be asked for an endpoint's name.
    """
    is_asked = config.endpoint_resolver is None and any(t.names for t in config.tunnels)
    if problem and is_asked:
        yield (
            f"the container's resolvers cannot be kept across a restart ({problem}), so only "
            "Docker's own at 127.0.0.11 is asked for the endpoint's name; set "
            "WIREGUARD_ENDPOINT_RESOLVER"
        )
