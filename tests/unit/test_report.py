"""What the gateway reports: reasons, limits and counts, each with a code that does not change."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from gateway.firewall.xtables.firewall import LOAD_OWNER, NO_OWNER
from gateway.model import (
    EVERYTHING,
    Candidate,
    Config,
    Endpoint,
    NamedEndpoint,
    Peer,
    PortRange,
    Protocol,
)
from gateway.policy import report
from gateway.policy.evidence import Pulse
from gateway.policy.limits import (
    DROP_NET_RAW,
    OWN_RESOLVER,
    Limit,
    LimitCode,
    limit_of_confinement,
    limit_of_extra_headers,
    limit_of_list,
    limit_of_old_flows,
    limit_of_service,
    limit_without_flush,
    limit_without_guard,
    limit_without_queues,
    limit_without_resolver,
    limits_of_config,
    limits_of_guard,
    limits_of_holes,
    limits_of_loss,
    limits_of_names,
    limits_of_path,
    limits_of_resolvers,
    limits_of_subnets,
    limits_without_holes,
)
from gateway.policy.report import REASONS, Status, Tally, status_of
from gateway.policy.rules import Family
from gateway.policy.states import Connected, Locked, Reason, State, Stopping, Turn
from tests.scenarios import (
    IPV4_ONLY,
    ON_PUBLIC_RANGE,
    PUBLIC_SUBNETS,
    SERVER4,
    connected,
    connecting,
    resolving,
)

UNMARKED = Candidate(IPV4_ONLY.private_key, IPV4_ONLY.addresses, IPV4_ONLY.peers)
NAMED = replace(
    UNMARKED,
    peers=(Peer("cHVibGlj", NamedEndpoint("vpn.example", 1), EVERYTHING),),
)
REMEDY = "cap_drop: [NET_RAW]"
PORTS = (PortRange(Protocol.TCP, 80, 80),)


def test_a_machine_that_can_do_everything_has_no_limits() -> None:
    """Nor has a configuration that leaves the choices to the gateway."""
    assert list(limits_of_guard(routed=True, in_advance=True)) == []
    assert list(limits_of_config(Config((UNMARKED, replace(UNMARKED, fwmark=9))), 9)) == []
    assert list(limits_of_names("")) == []
    assert list(limits_without_holes(Config((UNMARKED,)), "no NAT", "load it")) == []
    assert list(limits_of_resolvers(Config((NAMED,)), "")) == []
    assert list(limits_of_resolvers(Config((UNMARKED,)), "a read-only root")) == []


LIMITS = {
    LimitCode.NO_GUARD: ([limit_without_guard("no nft", "install it")], REMEDY),
    LimitCode.GUARD_NOT_ROUTED: (limits_of_guard(routed=False, in_advance=True), REMEDY),
    LimitCode.NO_GUARD_IN_ADVANCE: (limits_of_guard(routed=True, in_advance=False), REMEDY),
    LimitCode.NO_QUEUES: ([limit_without_queues("no CAP_NET_RAW")], REMEDY),
    LimitCode.IPV4_OPTIONS: ([limit_of_extra_headers(Family.IPV4)], "modprobe xt_u32"),
    LimitCode.IPV6_EXTENSION_HEADERS: (
        [limit_of_extra_headers(Family.IPV6)],
        "modprobe ip6t_ipv6header",
    ),
    LimitCode.NO_RESOLVER: ([limit_without_resolver("no unbound", "install it")], "install it"),
    LimitCode.RESOLVER_NOT_CONFINED: (
        [limit_of_confinement(NO_OWNER, LOAD_OWNER)],
        "modprobe xt_owner",
    ),
    LimitCode.CHOSEN_MARK: (
        limits_of_config(Config((UNMARKED, replace(UNMARKED, fwmark=7))), 9),
        REMEDY,
    ),
    LimitCode.OLD_FLOWS: ([limit_without_flush("no conntrack", "load it")], "load it"),
    LimitCode.RESOLVERS_NOT_KEPT: (
        limits_of_resolvers(Config((NAMED,)), "a read-only root"),
        "WIREGUARD_ENDPOINT_RESOLVER",
    ),
    LimitCode.NO_NAMES: (limits_of_names("a read-only root"), "/etc/resolv.conf"),
    LimitCode.NO_HOLES: (
        limits_without_holes(Config((UNMARKED,), input_ports=PORTS), "no NAT", "load it"),
        "load it",
    ),
    LimitCode.NO_IPV6_HOLES: (
        limits_of_holes(Config((UNMARKED,), input_ports=PORTS), lacks_forwarding=True),
        'net.ipv6.conf.all.forwarding: "1"',
    ),
    LimitCode.NOT_FETCHED: (
        [limit_of_list("https://lists.example/", "HTTP 404", None)],
        "DNS_BLOCK_URLS",
    ),
    LimitCode.SERVICE: (
        [limit_of_service("proxy", "the port is taken", "use another one")],
        "use another one",
    ),
    LimitCode.NOT_ATTACHED: (
        limits_of_subnets(PUBLIC_SUBNETS, ON_PUBLIC_RANGE),
        "FIREWALL_OUTBOUND_SUBNETS",
    ),
    LimitCode.PACKET_LOSS: (limits_of_loss(0.52), "another server"),
    LimitCode.MTU_TOO_LARGE: (limits_of_path(IPV4_ONLY, 1420, 1312), "WIREGUARD_MTU=1312"),
}
"""The limit of each code, and what its remedy mentions."""


@pytest.mark.parametrize("code", LimitCode)
def test_each_limit_has_its_code_and_a_remedy(code: LimitCode) -> None:
    """One limit each; the code is for programs, text and remedy are for people."""
    found, remedy = LIMITS[code]
    (limit,) = tuple(found)
    assert limit.code is code
    assert remedy in limit.remedy
    assert str(limit) == f"{limit.text}; {limit.remedy}"


def test_a_start_that_could_not_check_for_old_flows_has_the_same_code() -> None:
    """Whether they are forgotten is not known, and no rule depends on it."""
    assert limit_of_old_flows("busy").code is LimitCode.OLD_FLOWS


def test_without_a_guard_both_remedies_are_named_once() -> None:
    """One brings the guard back, the other makes it unnecessary."""
    limit = limit_without_guard("the program nft is not installed", "install it")
    assert limit.text == "packet sockets are not stopped: the program nft is not installed"
    assert limit.remedy == f"install it; or {DROP_NET_RAW}"
    assert limit_without_guard("no hook", DROP_NET_RAW).remedy.count(REMEDY) == 1


def test_every_reason_has_a_code_and_a_text_of_its_own() -> None:
    """A code is one word that metrics and scripts can use."""
    assert set(REASONS) == set(Reason)
    assert len(set(REASONS.values())) == len(REASONS)
    assert all(code.value.replace("_", "").isalpha() and code.islower() for code in Reason)


def test_a_status_names_the_servers_as_data() -> None:
    """Addresses with their ports; none while the server is a name, nor without a server."""
    assert status_of(connected(IPV4_ONLY), 1.0).endpoints == (SERVER4,)
    assert status_of(connecting(IPV4_ONLY), 1.0).endpoints == (SERVER4,)
    by_name = status_of(resolving(None), 1.0)
    assert (by_name.endpoints, by_name.endpoint) == ((), "vpn.example:51820")
    assert status_of(Stopping(), 1.0).endpoints == ()
    second = Endpoint(ip_address("2001:db8::7"), 7)
    peers = (*IPV4_ONLY.peers, replace(IPV4_ONLY.peers[0], endpoint=second))
    assert status_of(connected(replace(IPV4_ONLY, peers=peers)), 1.0).endpoints == (SERVER4, second)


def test_a_status_has_the_reason_of_its_state() -> None:
    """Also where the tunnel works and its resolver does not."""
    assert status_of(connecting(IPV4_ONLY), 1.0).reason is Reason.NO_HANDSHAKE
    assert status_of(connected(IPV4_ONLY), 1.0).reason is Reason.ANSWERS
    assert status_of(Stopping(), 1.0).reason is Reason.STOPPING
    heard = Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse(heard_at=9.0), resolver_failures=99)
    silent = status_of(heard, 1.0)
    assert (silent.reason, silent.healthy) == (Reason.RESOLVER_SILENT, False)


def test_a_sum_of_counters_never_decreases() -> None:
    """Not when the gateway replaces the rules, nor when another program does."""
    tally = Tally()
    tally.read({("ipv4", "out"): 5, ("ipv4", "in"): 0})
    assert tally.total == {("ipv4", "out"): 5, ("ipv4", "in"): 0}
    tally.restart_counts()
    tally.read({("ipv4", "out"): 5})
    assert tally.total[("ipv4", "out")] == 10
    tally.read({("ipv4", "out"): 2})
    assert tally.total[("ipv4", "out")] == 12
    tally.read({("ipv4", "out"): 3})
    assert tally.total[("ipv4", "out")] == 13


SEEN = Pulse(handshake=5.0, handshake_at=70.0, received=1000, sent=2000)


@pytest.mark.parametrize("state", [connecting(IPV4_ONLY), connected(IPV4_ONLY)], ids=report.name)
def test_a_status_has_the_counters_of_the_tunnel(state: State) -> None:
    """The handshake as an age in seconds, the bytes as totals."""
    status = status_of(replace(state, since=60.0, pulse=SEEN), 100.0)  # type: ignore[call-arg]
    assert (status.handshake_age, status.received, status.sent) == (30.0, 1000, 2000)
    assert (status.at, status.since) == (100.0, 60.0)
    fresh = status_of(state, 100.0)
    assert (fresh.handshake_age, fresh.received, fresh.sent) == (None, 0, 0)


@pytest.mark.parametrize(
    ("state", "name", "healthy"),
    [
        (Locked(), "locked", False),
        (resolving(None), "resolving", False),
        (connecting(IPV4_ONLY), "connecting", False),
        (connected(IPV4_ONLY), "connected", True),
        (Stopping(), "stopping", False),
    ],
    ids=report.name,
)
def test_only_a_connected_gateway_is_healthy(state: State, name: str, *, healthy: bool) -> None:
    """The name of the state is part of the answer."""
    status = status_of(state, 1.0)
    assert (status.state, status.healthy) == (name, healthy)


def test_a_status_says_what_happened_and_for_which_server() -> None:
    """A locked gateway is about no server; a working one has nothing to add."""
    locked = status_of(Locked(Reason.FIREWALL, detail="no rules"), 1.0)
    assert (locked.reason, locked.detail, locked.endpoint) == (Reason.FIREWALL, "no rules", "")
    lost = status_of(replace(connecting(IPV4_ONLY), detail="gone"), 1.0)
    assert (lost.detail, lost.endpoint) == ("gone", "198.51.100.10:51820")
    found = status_of(replace(resolving(None), detail="no answer"), 1.0)
    assert found.detail == "no answer"
    working = status_of(connected(IPV4_ONLY), 1.0)
    assert (working.detail, working.endpoint) == ("", "198.51.100.10:51820")
    assert status_of(Stopping(), 1.0).endpoint == ""


def test_servers_are_listed_once_for_people() -> None:
    """Two peers may be behind one endpoint."""
    second = replace(IPV4_ONLY.peers[0], endpoint=Endpoint(ip_address("2001:db8::7"), 7))
    peers = (*IPV4_ONLY.peers, *IPV4_ONLY.peers, second)
    status = status_of(connected(replace(IPV4_ONLY, peers=peers)), 1.0)
    assert status.endpoint == "198.51.100.10:51820, [2001:db8::7]:7"


def test_resolvers_that_are_not_kept_matter_only_where_one_is_asked() -> None:
    """With WIREGUARD_ENDPOINT_RESOLVER the container's own are not; nor where no name is."""
    problem = "a read-only root"
    chosen = Config((NAMED,), endpoint_resolver=ip_address("192.0.2.53"))
    assert list(limits_of_resolvers(chosen, problem)) == []
    (limit,) = limits_of_resolvers(Config((UNMARKED, NAMED)), problem)
    assert f"({problem})" in limit.text


@pytest.mark.parametrize(
    ("limit", "cause"),
    [
        (limit_without_queues("no CAP_NET_RAW"), "no CAP_NET_RAW"),
        (limit_without_flush("no conntrack", "load it"), "no conntrack"),
        (limit_of_old_flows("busy"), "busy"),
        (next(limits_of_names("a read-only root")), "a read-only root"),
    ],
    ids=["queues", "flush", "old flows", "names"],
)
def test_a_limit_names_what_this_machine_lacks(limit: Limit, cause: str) -> None:
    """After a colon, at the end."""
    assert limit.text.endswith(f": {cause}")


def test_queues_have_the_remedy_of_their_cause() -> None:
    """Where another one helps."""
    assert limit_without_queues("no program", "install it").remedy == "install it"


def test_the_sums_of_counters_know_what_was_read_and_is_zero() -> None:
    """Metrics show a counter from the start, and a counter that is gone keeps its sum."""
    tally = Tally()
    tally.read({("ipv4", "in"): 0})
    assert dict(tally.total) == {("ipv4", "in"): 0}
    tally.read({("ipv4", "in"): 2, ("ipv6", "in"): 3})
    tally.read({("ipv4", "in"): 2, ("ipv6", "in"): 3})
    assert dict(tally.total) == {("ipv4", "in"): 2, ("ipv6", "in"): 3}, "the same is not new"
    tally.read({("ipv4", "in"): 2})
    assert dict(tally.total) == {("ipv4", "in"): 4, ("ipv6", "in"): 3}
    tally.restart_counts()
    tally.restart_counts()
    assert dict(tally.total) == {("ipv4", "in"): 4, ("ipv6", "in"): 3}


def test_a_status_says_nothing_of_what_is_not_known() -> None:
    """A gateway that has just begun has no tunnel, no server and no counts."""
    status = Status(1.0, "locked", healthy=False, reason=Reason.STARTING, since=0.0)
    assert status == Status(
        at=1.0,
        state="locked",
        healthy=False,
        reason=Reason.STARTING,
        since=0.0,
        detail="",
        endpoint="",
        endpoints=(),
        handshake_age=None,
        received=0,
        sent=0,
        firewall="",
        guard=False,
        tunnel="",
        drift=0,
        verified_age=None,
        reconnects=(),
        switches=0,
        refused=(),
        limits=(),
    )
    assert Locked() == Locked(Reason.STARTING, since=0.0, retry_at=0.0, attempt=0, detail="")


def test_the_remedies_that_many_limits_share_can_be_pasted() -> None:
    """Into a compose file, or as a path."""
    assert DROP_NET_RAW == "give workloads `cap_drop: [NET_RAW]`"
    assert "/etc/resolv.conf" in OWN_RESOLVER


@pytest.mark.parametrize("lacks", [True, False])
@pytest.mark.parametrize(
    ("ports", "subnets", "is_limited"),
    [
        ((), (), False),
        (PORTS, (), True),
        ((), ("192.168.0.0/16",), False),
        ((), ("192.168.0.0/16", "fd00:1::/64"), True),
    ],
)
def test_what_needs_ipv6_between_two_namespaces(
    *, lacks: bool, ports: tuple[PortRange, ...], subnets: tuple[str, ...], is_limited: bool
) -> None:
    """A port is listed for both families, a subnet for its own."""
    config = Config(
        (UNMARKED,), input_ports=ports, outbound_subnets=tuple(map(ip_network, subnets))
    )
    found = list(limits_of_holes(config, lacks_forwarding=lacks))
    assert bool(found) == (is_limited and lacks)
