"""`gateway verify` without a kernel: what it tries, and how it reads and judges answers."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from gateway.commands.verify.answer import Answer, answer_from
from gateway.commands.verify.attempts import ANSWERED, SENT, SILENT
from gateway.commands.verify.held import connected_with
from gateway.commands.verify.lines import judged
from gateway.commands.verify.packets import frame, udp_packet
from gateway.commands.verify.report import without
from gateway.commands.verify.trials import TARGETS, on_a_link, quick, trials
from gateway.commands.verify.witness import goes_nowhere
from gateway.firewall.marks import FLOW, PASSED_FIREWALL
from gateway.firewall.nft import marks as nft_marks
from gateway.firewall.nft import render as render_nftables
from gateway.firewall.nft.listing import words_of
from gateway.firewall.xtables import marks as xt_marks
from gateway.firewall.xtables.entry import Entry, Part
from gateway.model import EVERYTHING, Endpoint, NamedEndpoint, Peer, Tunnel
from gateway.policy.facts import Facts
from gateway.policy.firewall import ruleset_for
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.marks import SHOWN
from gateway.policy.report import status_of
from gateway.policy.states import Reason
from gateway.services.health.board import describe
from tests.scenarios import (
    DUAL,
    GUARD_MARK,
    GUARDED,
    HOLES,
    IPV4_ONLY,
    ONE_UPLINK,
    SERVER4,
    SERVER6,
    TWO_UPLINKS,
    connected,
)

SECRET = SHOWN | 0x1234567
INSIDE4 = [ip_address("10.2.0.2")]
INSIDE6 = [ip_address("10.2.0.2"), ip_address("fd02::2")]


def at(address: str, port: int = 51820) -> Endpoint:
    """Return an endpoint."""
    return Endpoint(ip_address(address), port)


def names(facts: Facts, tunnel: Tunnel | None = None) -> list[str]:
    """Return the names of all trials without resolvers."""
    return [trial.name for trial in trials(facts, tunnel, {})]


def test_every_way_has_a_name_of_its_own() -> None:
    """A line of the report says what was tried, in both families and on every uplink."""
    found = names(TWO_UPLINKS, replace(IPV4_ONLY, fwmark=SECRET))
    assert len(found) == len(set(found))
    for way in ("bound to {}, UDP", "by a packet socket on {}, without queue"):
        for uplink in ("eth0", "eth1"):
            assert {f"IPv{version} {way.format(uplink)}" for version in (4, 6)} <= set(found)
    assert f"to the server {SERVER4}, marked, from another port" in found


def test_the_visible_mark_is_tried_next_to_the_secret_one() -> None:
    """A mark that the user chose is both, so it is tried once."""
    secret = names(ONE_UPLINK, replace(IPV4_ONLY, fwmark=SECRET))
    chosen = names(ONE_UPLINK, replace(IPV4_ONLY, fwmark=7))
    assert "IPv4 with the mark of the encrypted flow" in secret
    assert "IPv4 with the mark that ip rule shows" in secret
    assert "IPv4 with the mark of the encrypted flow" not in chosen
    assert "IPv4 with the mark that ip rule shows" in chosen


def test_without_a_connection_nothing_is_sent_to_a_server() -> None:
    """There is none to send to. The bit that ip rule shows needs no connection."""
    found = names(ONE_UPLINK)
    assert not [name for name in found if "server" in name or "tunnel" in name]
    assert "IPv6 with the mark that ip rule shows" in found


def test_only_resolvers_on_a_link_are_asked() -> None:
    """Not a third party, nor a configured one; the router of the link is one of them."""
    near, public, allowed = map(ip_address, ("172.18.0.53", "9.9.9.9", "172.18.0.54"))
    asked = on_a_link(ONE_UPLINK, (near, public, allowed), {allowed})
    assert asked == dict.fromkeys((near, ip_address("172.18.0.1"), ip_address("fd18::1")), "eth0")
    found = [trial.name for trial in trials(ONE_UPLINK, None, asked) if "DNS over" in trial.name]
    assert f"DNS over UDP at {near} by eth0" in found
    assert "DNS over TCP at 127.0.0.11" in found
    assert len(found) == 8


def test_what_is_tried_while_the_tunnel_is_cut_is_seen_by_a_witness() -> None:
    """Ordinary traffic, bound sockets and packet sockets, in both families."""
    tried = list(quick(ONE_UPLINK))
    assert all(trial.is_shown for trial in tried)
    for version in TARGETS:
        own = [trial.name for trial in tried if trial.name.startswith(f"IPv{version}")]
        assert len(own) == 3


@pytest.mark.parametrize(
    ("result", "leaks", "is_shown", "ok"),
    [
        ("EPERM", 0, True, True),
        ("EPERM", 1, True, False),
        ("ENOBUFS", 0, False, True),
        (SENT, 0, True, True),
        (SENT, 2, True, False),
        (SENT, 0, False, False),
        (SILENT, 0, True, True),
        (SILENT, 0, False, False),
        (ANSWERED, 0, True, False),
        (ANSWERED, 0, False, False),
        ("EMFILE", 0, True, False),
        ("ENOMEM", 0, False, False),
    ],
)
def test_a_trial_is_judged_by_what_was_seen(
    result: str,
    leaks: int,
    is_shown: bool,  # noqa: FBT001 - a parameter of pytest
    ok: bool,  # noqa: FBT001
) -> None:
    """If no witness could have seen it leave, only a refusal is ok, and a shortage is none."""
    assert judged("way", result, leaks=leaks, is_shown=is_shown).ok is ok
    blind = judged("way", result, leaks=leaks, is_shown=is_shown, is_whole=False)
    assert blind.ok is (ok and result not in {SENT, SILENT})


@pytest.mark.parametrize("tunnel", [IPV4_ONLY, DUAL], ids=["ipv4", "ipv6"])
def test_the_two_marks_are_found_in_the_rules_that_nft_lists(tunnel: Tunnel) -> None:
    """By chain and comment, so that the marks of other rules are not taken for them."""
    secret = replace(tunnel, fwmark=SECRET)
    rules = ruleset_for(connected(secret), replace(HOLES, tunnels=(secret,)), GUARDED)
    held = words_of(render_nftables.render_chains(rules))
    found = [
        nft_marks.mark_of(held[f"chain {chain.name.lower()}"], why)
        for chain, why in (FLOW, PASSED_FIREWALL)
    ]
    assert found == [SECRET, GUARD_MARK]


@pytest.mark.parametrize(
    "rule",
    [
        "",
        'meta mark 0x1 accept comment "another"',
        'accept comment "why"',
        'meta mark comment "why"',
        'meta mark set ct mark comment "why"',
        'meta mark "open comment "why',
    ],
)
def test_a_rule_without_the_comment_or_a_mark_has_none(rule: str) -> None:
    """Other programs may have added rules. Control: the next rule has the mark."""
    assert nft_marks.mark_of([rule], "why") is None
    assert nft_marks.mark_of([rule, 'meta mark 0x7 accept comment "why"'], "why") == 7


COMMENT = Part("comment", "", 0, b"why".ljust(256, b"\0"))


@pytest.mark.parametrize(
    "parts",
    [
        (Part("mark", "", 1, (7).to_bytes(4, "little")), COMMENT, Part("", "ACCEPT")),
        (COMMENT, Part("MARK", "", 2, (7).to_bytes(4, "little") + b"\xff" * 4)),
    ],
    ids=["match", "target"],
)
def test_a_mark_is_found_in_the_bytes_of_the_legacy_tables(parts: tuple[Part, ...]) -> None:
    """By the comment of the rule; a rule without one, or without a mark, has none."""
    assert xt_marks.mark_of([Entry(b"", ()), Entry(b"", parts)], "why") == 7
    assert xt_marks.mark_of([Entry(b"", parts)], "wh") is None
    assert xt_marks.mark_of([Entry(b"", (COMMENT, Part("mark", "", 1, b"\1")))], "why") is None


def test_a_missing_capability_is_named_as_it_is_given() -> None:
    """Podman's default set is without NET_RAW."""
    said = str(without(["NET_RAW"]))
    assert "lacks NET_RAW" in said
    assert "`--cap-add NET_RAW`" in said
    assert "`cap_add: [NET_RAW]`" in said


def test_an_answer_of_another_kind_counts_as_missing() -> None:
    """Any workload can listen on the port while the gateway is not running."""
    strange = {
        "state": 1,
        "healthy": "yes",
        "reason": None,
        "reason_code": [],
        "verified_age": "1",
        "drift": {},
        "firewall": 0,
        "forwarded_ports": [1, {"port": 1, "protocols": ["udp"]}],
        "endpoints": [1, {"address": "x", "port": 1}, {"address": "::1", "port": "1"}],
        "limits": [None, "no_guard", {"code": "no_guard"}],
    }
    assert answer_from(strange) == answer_from({}) == Answer()
    assert answer_from({"limits": {}, "endpoints": "::1"}) == Answer()
    port = dict.fromkeys(("port", "listening", "arriving"), 1)
    lease = {**port, "version": 4, "protocols": [["udp"], {}, None, "udp"]}
    assert [it.protocols for it in answer_from({"forwarded_ports": [lease]}).leases] == [("udp",)]


@pytest.mark.parametrize("value", [True, None, "false", 0])
def test_the_guard_is_checked_unless_health_says_that_there_is_none(value: object) -> None:
    """Only `false` leaves the comparison out; the texts of limits decide nothing."""
    limit = {"code": "x", "text": "packet sockets are not stopped", "remedy": "y"}
    assert answer_from({"guard": value, "limits": [limit]}).guard
    assert not answer_from({"guard": False}).guard


def test_what_health_serves_is_what_verify_reads() -> None:
    """Endpoints, limits and the guard arrive as they are published."""
    tunnel = replace(DUAL, fwmark=SECRET)
    limit = Limit(LimitCode.NO_QUEUES, "text", "remedy")
    status = replace(status_of(connected(tunnel), 5.0), guard=True, limits=(limit,), drift=3)
    answer = answer_from(json.loads(json.dumps(describe(status, 5.0))))
    assert (answer.endpoints, answer.listen_port) == (tunnel.endpoints, tunnel.listen_port)
    assert (answer.state, answer.reason_code, answer.drift) == ("connected", Reason.ANSWERS, 3)
    assert (answer.guard, answer.limits) == (True, ("text; remedy [no_queues]",))
    assert str(SECRET) not in json.dumps(describe(status, 5.0))


def test_the_connected_server_is_known_by_endpoint_and_addresses() -> None:
    """Not by its place in the list."""
    other = replace(IPV4_ONLY, addresses=(ip_interface("10.9.0.2/32"),))
    candidates = [other, IPV4_ONLY, DUAL]
    assert connected_with(candidates, (SERVER4,), INSIDE4) == IPV4_ONLY
    assert connected_with(candidates, (SERVER6,), INSIDE6) == DUAL
    assert connected_with(candidates, (SERVER6,), INSIDE4) is None
    assert connected_with(candidates, (at("198.51.100.99"),), INSIDE4) is None
    assert connected_with(candidates, (), INSIDE4) is None


def test_a_server_by_name_is_known_by_the_address_that_it_has_now() -> None:
    """Each peer gets the endpoint at its position; the port must be its own."""
    peers = (
        Peer("Zmlyc3Q", NamedEndpoint("a.example", 51820), EVERYTHING),
        Peer("c2Vjb25k", NamedEndpoint("b.example", 51820), EVERYTHING),
    )
    named = replace(IPV4_ONLY, peers=peers)
    found = connected_with([named], (at("198.51.100.1"), at("198.51.100.2")), INSIDE4)
    assert found is not None
    assert found.endpoints == tuple(
        Endpoint(ip_address(f"198.51.100.{number}"), 51820) for number in (1, 2)
    )
    both = connected_with([named], (at("198.51.100.1"),), INSIDE4)
    assert both is not None
    assert both.endpoints == (Endpoint(ip_address("198.51.100.1"), 51820),)
    assert connected_with([named], (at("198.51.100.1", 443),), INSIDE4) is None
    assert connected_with([named], (), INSIDE4) is None


@pytest.mark.parametrize(("source", "version"), [("192.0.2.1", 4), ("2001:db8::1", 6)])
def test_a_packet_built_byte_by_byte_is_well_formed(source: str, version: int) -> None:
    """Checksums of RFC 1071 over what they cover come out as zero; odd payloads too."""
    target = TARGETS[version]
    packet = udp_packet(ip_address(source), target, (9, 53), b"odd")
    head = 20 if version == 4 else 40
    assert packet[0] >> 4 == version
    assert packet[head - len(target.packed) : head] == target.packed
    segment = packet[head:]
    assert segment[:6] == bytes((0, 9, 0, 53, 0, 11))
    ends = ip_address(source).packed + target.packed
    pseudo = ends + (len(segment)).to_bytes(4) + (17).to_bytes(4)
    assert summed(pseudo + segment + b"\0") == 0xFFFF
    if version == 4:
        assert summed(packet[:20]) == 0xFFFF
    assert goes_nowhere(frame(packet))


def test_a_witness_reads_the_target_of_a_neighbour_solicitation() -> None:
    """It goes to a multicast group, and the target is inside."""
    target = TARGETS[6].packed
    head = bytes.fromhex("6000000000183aff") + bytes(16) + bytes.fromhex("ff02") + bytes(14)
    for kind, is_for_target in ((135, True), (136, False)):
        message = bytes([kind]) + bytes(7) + target
        assert goes_nowhere(frame(head + message)) is is_for_target
    assert not goes_nowhere(frame(head + bytes([135])))


def summed(data: bytes) -> int:
    """Return the one's complement sum of 16-bit words."""
    total = sum(int.from_bytes(data[n : n + 2]) for n in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
