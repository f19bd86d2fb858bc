"""For any configuration, namespace and state: both renderings mean the same, and nothing leaks.

The texts that go into the kernel are read back by a small model of packets (tests/model), and what
it lets pass is held against the promises, written a second time.
"""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.xtables import render as render_iptables
from gateway.model import INTERFACE
from gateway.policy.firewall import ruleset_for
from gateway.policy.rules import Chain, Family, Ruleset, SetMark
from gateway.policy.states import Connected
from tests.model import iptables_text, nft_text
from tests.model.packets import (
    ACCEPT,
    FORWARDED,
    INCOMING,
    OUTGOING,
    PROHIBITED,
    RESET,
    TCP,
    Firewall,
    Outcome,
    Packet,
    walk,
)
from tests.model.promises import DOCKER_RESOLVER, excuse_in, excuse_out
from tests.model.strategies import GUARD_MARK, Situation, packets, situations
from tests.scenarios import SCENARIOS
from tests.vocabulary import EVERY_WORD

pytestmark = pytest.mark.promise("P3", "P4", "P5", "P7", "P8", "P9", "P10")

WAYS = {"outgoing": OUTGOING, "incoming": INCOMING, "forwarded": FORWARDED}

examples = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FIFTH = examples.max_examples // 5


def by_iptables(ruleset: Ruleset) -> Firewall:
    """Return what the text for iptables and ip6tables says."""
    firewall: Firewall = {}
    for family in Family:
        firewall = {
            **firewall,
            **iptables_text.read(render_iptables.render(ruleset, family), family),
        }
    return firewall


def by_nft(ruleset: Ruleset) -> Firewall:
    """Return what the text for nft says."""
    return nft_text.read(render_nftables.render(ruleset))


def agreed(ruleset: Ruleset, way: tuple[Chain, ...], packet: Packet) -> Outcome:
    """Return what becomes of `packet`, which has to be the same in both languages."""
    one, other = walk(by_iptables(ruleset), way, packet), walk(by_nft(ruleset), way, packet)
    assert one.same(other), f"{packet}\n{one}\n{other}"
    return one


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
@examples
def test_both_renderings_mean_the_same_and_nothing_passes_but_by_a_promise(
    way: str, data: st.DataObject
) -> None:
    """What passes has an excuse; nothing is forwarded at all."""
    situation = data.draw(situations())
    packet = data.draw(packets(situation, WAYS[way]))
    ruleset = ruleset_for(*situation)
    outcome = agreed(ruleset, WAYS[way], packet)
    if outcome.verdict != ACCEPT:
        event("refused")
        return
    excuse = promise(way, situation, packet)
    event(f"passes by {excuse}")
    assert excuse, f"{type(situation[0]).__name__}: {packet}\n{outcome.rule}\n{situation}"
    if way == "incoming" and GUARD_MARK in marks_given(ruleset, packet.family):
        assert outcome.mark != GUARD_MARK, "a socket could read the guard's mark"


def marks_given(ruleset: Ruleset, family: Family) -> set[int]:
    """Return the marks that packets get as they leave."""
    verdicts = [rule.verdict for rule in ruleset.of(family).get(Chain.POSTROUTING, ())]
    return {verdict.value for verdict in verdicts if isinstance(verdict, SetMark)}


def promise(way: str, situation: Situation, packet: Packet) -> str | None:
    """Return the promise by which `packet` may go this way."""
    if way == "forwarded":
        return None
    return (excuse_out if way == "outgoing" else excuse_in)(*situation, packet)


@given(data=st.data())
@examples
def test_both_languages_agree_on_every_word_of_the_vocabulary(data: st.DataObject) -> None:
    """Rules that no policy would have mean the same in both languages too."""
    situation = data.draw(situations())
    way = data.draw(st.sampled_from([OUTGOING, INCOMING, FORWARDED]))
    agreed(EVERY_WORD, way, data.draw(packets(situation, way)))


@pytest.mark.parametrize("name", SCENARIOS)
@given(data=st.data())
@settings(examples, max_examples=FIFTH)
def test_the_promises_hold_in_each_scenario_of_the_golden_files(
    name: str, data: st.DataObject
) -> None:
    """The situations that people review get their own share of packets."""
    situation = SCENARIOS[name]
    way = data.draw(st.sampled_from(["outgoing", "incoming"]))
    packet = data.draw(packets(situation, WAYS[way]))
    outcome = agreed(ruleset_for(*situation), WAYS[way], packet)
    assert outcome.verdict != ACCEPT or promise(way, situation, packet)


@pytest.mark.promise("P12", "P15")
@given(data=st.data())
@examples
def test_a_refused_connection_ends_only_while_there_is_a_tunnel(data: st.DataObject) -> None:
    """Without one it waits, because its path may come back; what would begin is always reset."""
    situation = data.draw(situations())
    packet = data.draw(packets(situation, OUTGOING))
    packet = replace(packet, protocol=TCP, later_fragment=False, extra_headers=False)
    outcome = agreed(ruleset_for(*situation), OUTGOING, packet)
    if outcome.verdict not in {RESET, PROHIBITED} or packet.destination == DOCKER_RESOLVER:
        return
    waits = not packet.syn and not isinstance(situation[0], Connected)
    event("waits" if waits else "ends")
    assert outcome.verdict == (PROHIBITED if waits else RESET)


@given(situation=situations())
@examples
def test_what_the_gateway_is_for_does_pass(situation: Situation) -> None:
    """A firewall that refuses everything would keep every promise but this one."""
    state, config, facts = situation
    if not isinstance(state, Connected):
        return
    ruleset = ruleset_for(*situation)
    for address in state.tunnel.addresses:
        family = Family(address.version)
        packet = Packet(family=family, source=address.ip, destination=address.ip + 100)
        there = replace(packet, out_interface=INTERFACE)
        assert agreed(ruleset, OUTGOING, there).verdict == ACCEPT
        back = replace(
            packet, source=address.ip + 100, destination=address.ip, in_interface=INTERFACE,
            state="ESTABLISHED", direction="REPLY",
        )  # fmt: skip
        assert agreed(ruleset, INCOMING, back).verdict == ACCEPT
    for uplink in facts.uplinks:
        for address in uplink.addresses:
            for ports in config.input_ports:
                client = Packet(
                    family=Family(address.version),
                    source=address.ip + 100,
                    destination=address.ip,
                    in_interface=uplink.name,
                    protocol={"tcp": 6, "udp": 17}[ports.protocol],
                    source_port=40000,
                    destination_port=ports.last,
                )
                arrived = agreed(ruleset, INCOMING, client)
                assert arrived.verdict == ACCEPT
                answer = Packet(
                    family=client.family,
                    source=client.destination,
                    destination=client.source,
                    out_interface=uplink.name,
                    protocol=client.protocol,
                    source_port=client.destination_port,
                    destination_port=client.source_port,
                    connmark=arrived.connmark,
                    state="ESTABLISHED",
                    direction="REPLY",
                )
                left = agreed(ruleset, OUTGOING, answer)
                assert left.verdict == ACCEPT
                assert facts.guard_mark is None or left.mark == GUARD_MARK
