"""Which bits of the encrypted flow's mark are shown, and where."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from gateway.model import Config
from gateway.policy import marks
from gateway.policy.flows import encrypted_flow
from gateway.policy.marks import SHOWN, WHOLE
from gateway.policy.routing import (
    LOCKED,
    PRIORITY_ENCRYPTED,
    routing_for,
    routing_for_question,
)
from gateway.policy.rules import Chain, SetMark
from tests.scenarios import (
    CHOSEN,
    CHOSEN_MARK,
    ETH0,
    FLOW_MARK,
    IPV4_ONLY,
    ONE_UPLINK,
    SERVER4,
)

SECRETS = (SHOWN, SHOWN | 1, FLOW_MARK, WHOLE)
CHOSEN_MARKS = (1, CHOSEN_MARK, SHOWN - 1)


@pytest.mark.parametrize("mark", SECRETS, ids=hex)
def test_of_a_secret_mark_one_bit_is_shown_and_asked_for(mark: int) -> None:
    """A routing rule that asked for all bits would have to show all bits."""
    assert (marks.shown(mark), marks.mask(mark)) == (0x8000_0000, 0x8000_0000)
    assert mark & marks.mask(mark) == marks.shown(mark), "the rule matches the flow"


@pytest.mark.parametrize("mark", CHOSEN_MARKS, ids=hex)
def test_a_chosen_mark_is_shown_and_asked_for_as_a_whole(mark: int) -> None:
    """It is not a secret, and other programs may use marks that share bits with it."""
    assert (marks.shown(mark), marks.mask(mark)) == (mark, 0xFFFF_FFFF)
    assert mark & marks.mask(mark) == marks.shown(mark), "the rule matches the flow"


def test_a_chosen_mark_stays_and_a_missing_one_is_drawn() -> None:
    """Each candidate has its own choice."""
    unmarked = replace(IPV4_ONLY, fwmark=None)  # type: ignore[arg-type]  # a candidate as loaded
    config = marks.with_secret_mark(Config((unmarked, CHOSEN)), 5)
    assert [tunnel.fwmark for tunnel in config.tunnels] == [SHOWN | 5, CHOSEN_MARK]


def test_the_rule_of_ip_has_the_bit_and_the_mask_and_nothing_secret() -> None:
    """Every workload can read it."""
    for tunnel, seen in ((IPV4_ONLY, (SHOWN, SHOWN)), (CHOSEN, (CHOSEN_MARK, WHOLE))):
        rules = routing_for(tunnel, Config((tunnel,)), ONE_UPLINK).rules
        (rule,) = [rule for rule in rules if rule.priority == PRIORITY_ENCRYPTED]
        assert (rule.fwmark, rule.fwmask) == seen


def test_the_shown_bit_leads_to_the_endpoint_and_nowhere_else() -> None:
    """Any workload with CAP_NET_RAW can set it, and the guard's and the query's marks have it."""
    routing = routing_for(IPV4_ONLY, Config((IPV4_ONLY,)), ONE_UPLINK)
    matching = [rule for rule in routing.rules if (rule.fwmark or 0) & SHOWN]
    assert [rule.destination for rule in matching] == [ip_network(SERVER4.address)]
    for others in (LOCKED, *map(routing_for_question, (SERVER4.address, ip_address("127.0.0.11")))):
        assert all(rule.fwmark is None for rule in others.rules)


def test_arriving_packets_get_the_shown_bit_and_leaving_ones_need_the_whole_mark() -> None:
    """A raw socket can read the mark of what arrives (SO_RCVMARK)."""
    rules = dict(encrypted_flow(ETH0, SERVER4, IPV4_ONLY))
    assert rules[Chain.PREROUTING].verdict == SetMark(SHOWN)
    assert rules[Chain.OUTPUT].mark == FLOW_MARK
