"""From one ruleset to the next, without a moment that accepts what neither of them accepts.

A packet first meets the chains that mark it and later those that decide by marks, and no kernel
interface changes both for a packet that is between them: in the legacy tables they are two commits,
in nftables one transaction that a packet can meet half way. So the deciding chains change first, to
`interim`, which accepts nothing that the new ruleset would not accept, whatever the marks are; then
the marking chains change; and when the packets with former marks are gone, the deciding chains
become those of the new ruleset. Packets that match no changing mark are never interrupted: on
loopback, a health check would wait a second for its lost packet. Connections that lose their rule
for this moment are not reset.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from gateway.policy.rules import Accept, Chain, Family, Reject, Rule, Rules, Ruleset

MARKERS = {
    Chain.INPUT: {Chain.PREROUTING, Chain.OUTPUT_MARK, Chain.POSTROUTING},
    Chain.FORWARD: {Chain.PREROUTING, Chain.OUTPUT_MARK, Chain.POSTROUTING},
    Chain.OUTPUT: {Chain.OUTPUT_MARK},
}
"""The chains that may have set the mark that a packet has in each deciding chain.

A packet keeps its mark through loopback. One that starts here has met only the first OUTPUT chain,
and has the mark of its socket. Any chain may have set the mark of its flow.
"""


def interim(ruleset: Ruleset, changed: Mapping[Family, Collection[Chain]]) -> Ruleset:
    """Return the part of `ruleset` that may be in force while the chains in `changed` change.

    It equals `ruleset` where no rule depends on their marks.
    """
    ipv4, ipv6 = (_cautious(ruleset.of(family), set(changed[family])) for family in Family)
    return Ruleset(ipv4, ipv6)


def _cautious(rules: Rules, changed: set[Chain]) -> Rules:
    return {chain: _safe(chain, listed, changed) for chain, listed in rules.items()}


def _safe(chain: Chain, listed: tuple[Rule, ...], changed: set[Chain]) -> tuple[Rule, ...]:
    safe = tuple(rule for it in listed if (rule := _without_doubt(chain, it, changed)) is not None)
    return listed if safe == listed else tuple(map(_patient, safe, (*safe[1:], None)))


def _patient(rule: Rule, following: Rule | None) -> Rule:
    """Return `rule`, for what begins alone if it resets what `following` would reject anyway."""
    is_half = rule.verdict == Reject(tcp_reset=True)
    if is_half and replace(rule, verdict=Reject(), protocol=None) == following:
        return replace(rule, syn=True)
    return rule


def _without_doubt(chain: Chain, rule: Rule, changed: set[Chain]) -> Rule | None:
    """Return `rule` without the marks in doubt, or None: they let no packet pass or escape it."""
    by_mark = rule.mark is not None and changed & MARKERS.get(chain, set())
    by_connmark = rule.connmark is not None and changed and chain in MARKERS
    if not by_mark and not by_connmark:
        return rule
    if isinstance(rule.verdict, Accept):
        return None
    return replace(rule, mark=None, connmark=None)
