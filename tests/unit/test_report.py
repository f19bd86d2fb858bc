"""What the gateway reports: reasons, limits and counts, each with a code that does not change."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.model import EVERYTHING, Candidate, Config, Endpoint, NamedEndpoint, Peer
from gateway.policy import report
from gateway.policy.evidence import Pulse
from gateway.policy.report import REASONS, LimitCode, Tally, status_of
from gateway.policy.rules import Family
from gateway.policy.states import Connected, Reason, Stopping, Turn
from tests.scenarios import IPV4_ONLY, SERVER4, connected, connecting, resolving

UNMARKED = Candidate(IPV4_ONLY.private_key, IPV4_ONLY.addresses, IPV4_ONLY.peers)
NAMED = replace(
    UNMARKED,
    peers=(Peer("cHVibGlj", NamedEndpoint("vpn.example", 1), EVERYTHING),),
)
REMEDY = "cap_drop: [NET_RAW]"


def test_a_machine_that_can_do_everything_has_no_limits() -> None:
    """Nor has a configuration that leaves the choices to the gateway."""
    assert list(report.limits_of_guard(routed=True, in_advance=True)) == []
    assert list(report.limits_of_config(Config((UNMARKED,)))) == []
    assert list(report.limits_of_names("")) == []
    assert list(report.limits_of_resolvers(Config((NAMED,)), "")) == []
    assert list(report.limits_of_resolvers(Config((UNMARKED,)), "a read-only root")) == []


LIMITS = {
    LimitCode.NO_GUARD: ([report.limit_without_guard("no nft", "install it")], REMEDY),
    LimitCode.GUARD_NOT_ROUTED: (report.limits_of_guard(routed=False, in_advance=True), REMEDY),
    LimitCode.NO_GUARD_IN_ADVANCE: (report.limits_of_guard(routed=True, in_advance=False), REMEDY),
    LimitCode.NO_QUEUES: ([report.limit_without_queues("no CAP_NET_RAW")], REMEDY),
    LimitCode.IPV4_OPTIONS: ([report.limit_of_extra_headers(Family.IPV4)], "modprobe xt_u32"),
    LimitCode.IPV6_EXTENSION_HEADERS: (
        [report.limit_of_extra_headers(Family.IPV6)],
        "modprobe ip6t_ipv6header",
    ),
    LimitCode.CHOSEN_MARK: (
        report.limits_of_config(Config((UNMARKED, replace(UNMARKED, fwmark=7)))),
        REMEDY,
    ),
    LimitCode.OLD_FLOWS: ([report.limit_without_flush("no conntrack", "load it")], "load it"),
    LimitCode.RESOLVERS_NOT_KEPT: (
        report.limits_of_resolvers(Config((NAMED,)), "a read-only root"),
        "WIREGUARD_ENDPOINT_RESOLVER",
    ),
    LimitCode.NO_NAMES: (report.limits_of_names("a read-only root"), "/etc/resolv.conf"),
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
    assert report.limit_of_old_flows("busy").code is LimitCode.OLD_FLOWS


def test_without_a_guard_both_remedies_are_named_once() -> None:
    """One brings the guard back, the other makes it unnecessary."""
    limit = report.limit_without_guard("the program nft is not installed", "install it")
    assert limit.text == "packet sockets are not stopped: the program nft is not installed"
    assert limit.remedy == f"install it; or {report.DROP_NET_RAW}"
    assert report.limit_without_guard("no hook", report.DROP_NET_RAW).remedy.count(REMEDY) == 1


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
