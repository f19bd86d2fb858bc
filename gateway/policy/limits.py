"""What a machine or a configuration keeps the gateway from guaranteeing, and the remedies.

docs/known-issues.md explains the limits: none makes the gateway unhealthy.
"""

from collections.abc import Iterator
from enum import StrEnum

from gateway.model import Config, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.facts import Facts
from gateway.policy.link import SMALLEST_MTU
from gateway.policy.rules import Family
from gateway.policy.ways import attached


class LimitCode(StrEnum):
    """What a machine or a configuration keeps the gateway from guaranteeing."""

    NO_GUARD = "no_guard"
    GUARD_NOT_ROUTED = "guard_not_routed"
    NO_GUARD_IN_ADVANCE = "no_guard_in_advance"
    NO_QUEUES = "no_queues"
    IPV4_OPTIONS = "ipv4_options"
    IPV6_EXTENSION_HEADERS = "ipv6_extension_headers"
    CHOSEN_MARK = "chosen_mark"
    OLD_FLOWS = "old_flows"
    RESOLVERS_NOT_KEPT = "resolvers_not_kept"
    NO_NAMES = "no_names"
    NO_RESOLVER = "no_resolver"
    RESOLVER_NOT_CONFINED = "resolver_not_confined"
    NO_IPV6_HOLES = "no_ipv6_holes"
    NO_HOLES = "no_holes"
    MTU_TOO_LARGE = "mtu_too_large"
    PACKET_LOSS = "packet_loss"
    NOT_ATTACHED = "subnet_not_attached"
    NOT_FETCHED = "block_list_not_fetched"
    SERVICE = "service_not_working"


@frozen
class Limit:
    """One limit: its code, and for people what is not guaranteed and what to do about it."""

    code: LimitCode
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


DROP_NET_RAW = "give workloads `cap_drop: [NET_RAW]`"
"""The remedy for everything that takes a packet socket, a raw socket or a mark."""

HOUR = 3600

OWN_RESOLVER = "mount a file of your own at /etc/resolv.conf, here and in the workloads"
"""The remedy where the resolver file cannot be written, such as Docker's with a read-only root."""

OTHER_USERS = "another user namespace owns the network, so no rule knows a user of this one"
SAME_USERS = "run the gateway in the user namespace of the container whose network it has"
"""Why rules know no user, and the remedy."""

FEW_USERS = "its user namespace has too few ids"
MORE_USERS = "give the container 65536 user and group ids (Podman: `--userns=auto:size=65536`)"
"""Why a service cannot have a user of its own, and the remedy."""


def limit_without_guard(missing: str, remedy: str) -> Limit:
    """Return the limit of a machine without the egress guard, because of what is `missing`."""
    remedies = dict.fromkeys((remedy, DROP_NET_RAW))
    return Limit(
        LimitCode.NO_GUARD, f"packet sockets are not stopped: {missing}", "; or ".join(remedies)
    )


def limits_of_guard(*, routed: bool, in_advance: bool) -> Iterator[Limit]:
    """Yield the limits of an egress guard.

    It is `routed` if it can check whether a frame was routed, and `in_advance` if it can guard an
    interface that does not exist yet.
    """
    if not routed:
        yield Limit(
            LimitCode.GUARD_NOT_ROUTED,
            "the egress guard cannot check whether a frame was routed (the kernel lacks "
            "IP_ROUTE_CLASSID), so anyone who learns its mark passes it",
            DROP_NET_RAW,
        )
    if not in_advance:
        yield Limit(
            LimitCode.NO_GUARD_IN_ADVANCE,
            "an interface that appears later is closed to packet sockets a moment later (guards "
            "for interfaces that do not exist yet take Linux 6.16)",
            DROP_NET_RAW,
        )


def limit_without_queues(missing: str, remedy: str = DROP_NET_RAW) -> Limit:
    """Return the limit of a machine where AF_XDP sockets are not stopped, because of `missing`."""
    return Limit(LimitCode.NO_QUEUES, f"AF_XDP sockets are not stopped: {missing}", remedy)


def limit_of_extra_headers(family: Family) -> Limit:
    """Return the limit of a kernel whose legacy tables cannot match `Rule.extra_headers`."""
    code, what, module = {
        Family.IPV4: (LimitCode.IPV4_OPTIONS, "IPv4 options, source routes among them,", "xt_u32"),
        Family.IPV6: (
            LimitCode.IPV6_EXTENSION_HEADERS,
            "IPv6 extension headers, routing headers among them,",
            "ip6t_ipv6header",
        ),
    }[family]
    return Limit(
        code,
        f"{what} are not refused (the kernel lacks {module}): a router in a listed LAN subnet that"
        " honours them would forward a packet",
        f"load {module} on the host (modprobe {module}), or use FIREWALL_BACKEND=nftables",
    )


def limit_without_resolver(missing: str, remedy: str) -> Limit:
    """Return the limit of a gateway whose own resolver cannot run, because of what is `missing`."""
    text = f"workloads ask the resolver of the tunnel themselves, and not the gateway's: {missing}"
    return Limit(LimitCode.NO_RESOLVER, text, f"{remedy}, or set DNS_SERVER=off")


def limit_of_confinement(missing: str, remedy: str) -> Limit:
    """Return the limit of a resolver that no rule confines, because of what is `missing`."""
    return Limit(
        LimitCode.RESOLVER_NOT_CONFINED,
        f"only routes, and not its user as well, keep the gateway's resolver in the tunnel "
        f"({missing})",
        remedy,
    )


def limit_of_unknown_users(*, has_zones: bool = False) -> Limit:
    """Return the limit of a network whose rules know no user of the gateway's.

    `has_zones`: what leaves for the resolver of a local zone would be known by its user.
    """
    zones = "; so DNS_LOCAL_ZONES has no effect" if has_zones else ""
    return limit_of_confinement(f"{OTHER_USERS}{zones}", SAME_USERS)


def limits_of_config(config: Config, drawn: int | None = None) -> Iterator[Limit]:
    """Yield the limits that the user has chosen; `drawn` is the mark of tunnels without FwMark."""
    if any(tunnel.fwmark not in {None, drawn} for tunnel in config.tunnels):
        yield Limit(
            LimitCode.CHOSEN_MARK,
            "the firewall mark of the encrypted flow is the configured FwMark, which `ip rule` "
            "shows to every workload",
            f"leave FwMark out, or {DROP_NET_RAW}",
        )


def limit_without_flush(missing: str, remedy: str) -> Limit:
    """Return the limit of a machine that cannot forget flows, because of what is `missing`."""
    text = f"flows older than the gateway are not forgotten: {missing}"
    return Limit(LimitCode.OLD_FLOWS, text, remedy)


def limit_of_old_flows(problem: str) -> Limit:
    """Return the limit of a start that could not check for old flows, because of `problem`."""
    return Limit(
        LimitCode.OLD_FLOWS,
        f"flows older than the gateway may not be forgotten: {problem}",
        "restart the gateway when the host is less busy; no rule depends on it (P6)",
    )


def limits_of_resolvers(config: Config, problem: str) -> Iterator[Limit]:
    """Yield the limit of a container that cannot keep its resolvers, because of `problem`.

    It matters if one of them is asked for an endpoint's name.
    """
    is_asked = config.endpoint_resolver is None and any(t.names for t in config.tunnels)
    if problem and is_asked:
        yield Limit(
            LimitCode.RESOLVERS_NOT_KEPT,
            f"the container's resolvers cannot be kept across a restart ({problem}), so only "
            "Docker's own at 127.0.0.11 is asked for the endpoint's name",
            "set WIREGUARD_ENDPOINT_RESOLVER",
        )


def limits_of_names(problem: str, remedy: str = OWN_RESOLVER) -> Iterator[Limit]:
    """Yield the limit of workloads whose names do not resolve, because of `problem` if any."""
    if problem:
        yield Limit(LimitCode.NO_NAMES, f"names do not resolve: {problem}", remedy)


def limit_of_list(url: str, problem: str, age: int | None) -> Limit:
    """Return the limit of a list of blocked names that was not fetched, because of `problem`.

    `age` is that of its copy in seconds, None without one.
    """
    used = "so nothing of it is blocked" if age is None else f"so its copy of {_ago(age)} is used"
    return Limit(
        LimitCode.NOT_FETCHED,
        f"the list of blocked names {url} cannot be fetched ({problem}), {used}",
        "it is tried again within ten minutes; if that does not help, correct or remove it in "
        "DNS_BLOCK_URLS",
    )


def limit_of_service(name: str, problem: str, remedy: str) -> Limit:
    """Return the limit of an optional service `name` that does not work as it should."""
    return Limit(LimitCode.SERVICE, f"{name}: {problem}", remedy)


def _ago(seconds: int) -> str:
    return f"{seconds} s ago" if seconds < HOUR else f"{seconds // HOUR} h ago"


def limits_of_path(tunnel: Tunnel, mtu: int | None, path: int | None) -> Iterator[Limit]:
    """Yield the limit of `tunnel` with an interface of `mtu` bytes, of which only `path` arrive.

    Only a chosen MTU can be as large, or the smallest that IPv6 works with. None is unknown.
    """
    if mtu is None or path is None or path >= mtu:
        return
    found = "leave it out: the gateway finds one that fits"
    other = "use a network that carries larger packets" if tunnel.mtu is None else found
    fits = not tunnel.has_family(6) or path >= SMALLEST_MTU
    yield Limit(
        LimitCode.MTU_TOO_LARGE,
        f"packets of {mtu} bytes vanish on the way through the tunnel, those of {path} arrive",
        f"set WIREGUARD_MTU={path}, or {other}" if fits else other,
    )


def limits_of_loss(share: float | None) -> Iterator[Limit]:
    """Yield the limit of a tunnel where this share of the probes has no answer, None for few."""
    if share is not None:
        yield Limit(
            LimitCode.PACKET_LOSS,
            f"about {round(share * 10) * 10} % of what is asked in the tunnel has no answer within "
            "a second: packets are lost on the way to the server or back",
            "compare another server and another network; if it happens under load, limit the rate "
            "at which workloads send",
        )


def limits_of_subnets(config: Config, facts: Facts) -> Iterator[Limit]:
    """Yield the limit of each listed public subnet that no uplink is in now."""
    for subnet in config.public_subnets:
        if not any(attached([subnet], uplink) for uplink in facts.uplinks):
            yield Limit(
                LimitCode.NOT_ATTACHED,
                f"no uplink is in {subnet}, a public range, so its addresses are those of the "
                "internet: they are reached through the tunnel",
                "attach that network to the gateway, or remove it from FIREWALL_OUTBOUND_SUBNETS",
            )


def limits_of_holes(config: Config, *, lacks_forwarding: bool) -> Iterator[Limit]:
    """Yield the limit of a gateway with a vault that cannot forward IPv6, if a hole needs that."""
    subnets = any(Family.IPV6.has(subnet) for subnet in config.outbound_subnets)
    if lacks_forwarding and (config.input_ports or subnets):
        yield Limit(
            LimitCode.NO_IPV6_HOLES,
            "the listed holes are closed for IPv6, because the gateway's namespace does not forward"
            " it: ports do not answer, and packets to listed subnets go into the tunnel",
            'give the gateway `sysctls: {net.ipv6.conf.all.forwarding: "1"}`, or list no holes',
        )


def limits_without_holes(config: Config, missing: str, remedy: str) -> Iterator[Limit]:
    """Yield the limit of a gateway with a vault that cannot have holes, if one is listed."""
    if config.input_ports or config.outbound_subnets or config.public_subnets:
        text = f"the listed holes are closed: {missing}"
        yield Limit(LimitCode.NO_HOLES, text, remedy)
