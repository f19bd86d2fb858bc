"""What of a ruleset may be in force while the marks change that it decides by."""

from dataclasses import replace

import pytest

from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.rules import (
    Accept,
    Chain,
    Drop,
    Family,
    Reject,
    Rule,
    Ruleset,
    SetMark,
    Transport,
)
from gateway.policy.transition import interim
from tests.scenarios import SCENARIOS

MARKING = (Chain.PREROUTING, Chain.OUTPUT_MARK, Chain.POSTROUTING)
EVERYTHING = dict.fromkeys(Family, MARKING)
NOTHING: dict[Family, tuple[Chain, ...]] = dict.fromkeys(Family, ())

PLAIN = Rule(why="plain", verdict=Accept(), in_interface="lo")
BY_MARK = replace(PLAIN, mark=1)
BY_CONNMARK = replace(PLAIN, connmark=1)


def both(chain: Chain, *rules: Rule) -> Ruleset:
    """Return a ruleset with one chain in both families."""
    return Ruleset({chain: rules}, {chain: rules})


@pytest.mark.parametrize("name", SCENARIOS)
def test_where_no_mark_changes_the_rules_come_at_once(name: str) -> None:
    """Nothing is interrupted without need."""
    ruleset = ruleset_for(*SCENARIOS[name])
    assert interim(ruleset, NOTHING) == ruleset


def test_what_decides_by_no_mark_continues() -> None:
    """The locked rules know no marks, so that they are in force in one step."""
    assert interim(closed(), EVERYTHING) == closed()


@pytest.mark.parametrize("rule", [BY_MARK, BY_CONNMARK])
def test_what_accepts_by_a_doubtful_mark_waits(rule: Rule) -> None:
    """A packet with the former meaning of the mark may be on its way."""
    ruleset = both(Chain.INPUT, PLAIN, rule)
    assert interim(ruleset, EVERYTHING) == both(Chain.INPUT, PLAIN)


@pytest.mark.parametrize("rule", [BY_MARK, BY_CONNMARK, replace(BY_MARK, connmark=1)])
def test_what_refuses_by_a_doubtful_mark_refuses_without_it(rule: Rule) -> None:
    """Else an accepting rule behind it would pass what it should have caught."""
    refusing = replace(rule, verdict=Drop())
    ruleset = both(Chain.OUTPUT, refusing, PLAIN)
    without = replace(refusing, mark=None, connmark=None)
    assert interim(ruleset, EVERYTHING) == both(Chain.OUTPUT, without, PLAIN)


@pytest.mark.parametrize("deciding", [Chain.INPUT, Chain.FORWARD])
@pytest.mark.parametrize("marking", MARKING)
def test_what_arrives_may_have_its_mark_from_any_chain(deciding: Chain, marking: Chain) -> None:
    """Through loopback from the chains of what leaves, and from the one of what arrives."""
    doubtful = dict.fromkeys(Family, (marking,))
    assert interim(both(deciding, BY_MARK, PLAIN), doubtful) == both(deciding, PLAIN)


def test_what_starts_here_has_no_mark_of_an_arriving_packet() -> None:
    """The encrypted flow is not interrupted when only the marks of arriving packets change."""
    ruleset = both(Chain.OUTPUT, BY_MARK)
    arriving = dict.fromkeys(Family, (Chain.PREROUTING, Chain.POSTROUTING))
    assert interim(ruleset, arriving) == ruleset
    leaving = dict.fromkeys(Family, (Chain.OUTPUT_MARK,))
    assert interim(ruleset, leaving) == both(Chain.OUTPUT)


def test_the_mark_of_a_flow_may_be_any_chains() -> None:
    """It is set in one direction and met in the other."""
    for chain in MARKING:
        doubtful = dict.fromkeys(Family, (chain,))
        assert interim(both(Chain.OUTPUT, BY_CONNMARK), doubtful) == both(Chain.OUTPUT)


def test_a_connection_that_loses_its_rule_for_a_moment_is_not_reset() -> None:
    """It is rejected with an ICMP error, as the rule that follows says; what begins is reset.

    A reset without such a rule behind it stays: what it no longer met could be accepted.
    """
    rest = Rule(why="the rest", verdict=Reject(), out_interface="eth0")
    reset = replace(rest, verdict=Reject(tcp_reset=True), protocol=Transport.TCP)
    for behind, found in (((rest,), replace(reset, syn=True)), ((PLAIN, rest), reset)):
        ruleset = both(Chain.OUTPUT, BY_CONNMARK, reset, *behind)
        assert interim(ruleset, EVERYTHING) == both(Chain.OUTPUT, found, *behind)
        assert interim(ruleset, NOTHING) == ruleset


def test_the_families_do_not_touch_each_other() -> None:
    """Marks of IPv4 change, IPv6 stays."""
    ruleset = both(Chain.INPUT, BY_MARK)
    doubtful = {Family.IPV4: MARKING, Family.IPV6: ()}
    assert interim(ruleset, doubtful) == Ruleset({Chain.INPUT: ()}, {Chain.INPUT: (BY_MARK,)})


def test_the_marking_chains_are_the_new_ones() -> None:
    """They change in the same step or the next, and not a third time."""
    marking = Rule(why="mark", verdict=SetMark(1), connmark=7)
    assert interim(both(Chain.PREROUTING, marking), EVERYTHING) == both(Chain.PREROUTING, marking)
