"""From one ruleset to the next without a moment that passes what neither passes.

A packet meets the chains that mark it first and the chains that decide by marks later, and no
kernel interface changes both for a packet that stands between them: in the legacy tables they are
two commits, in nftables one transaction that a packet can meet half way. So the decisions
change first, to `interim`, which passes nothing that the new ruleset would not pass whatever the
marks say; then the marks change; and when the packets with former marks are gone, the decisions
become those of the new ruleset. What depends on no mark that changes is never interrupted: loopback
for one, where a health check would wait a second for its lost packet.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from gateway.policy.rules import Accept, Chain, Family, Rule, Rules, Ruleset

MARKERS = {
    Chain.INPUT: {Chain.PREROUTING, Chain.OUTPUT_MARK, Chain.POSTROUTING},
    Chain.FORWARD: {Chain.PREROUTING, Chain.OUTPUT_MARK, Chain.POSTROUTING},
    Chain.OUTPUT: {Chain.OUTPUT_MARK},
}
"""The chains that may have set the mark that a packet wears in each deciding chain.

A packet keeps its mark through loopback; one that starts here has met the first OUTPUT chain only,
and the mark of its socket. The mark of its flow may be any chain's.
"""


def interim(ruleset: Ruleset, changed: Mapping[Family, Collection[Chain]]) -> Ruleset:
    """Return what of `ruleset` may be in force while the marking chains in `changed` change.

    It equals `ruleset` where nothing depends on them.
    """
    ipv4, ipv6 = (_cautious(ruleset.of(family), set(changed[family])) for family in Family)
    return Ruleset(ipv4, ipv6)


def _cautious(rules: Rules, changed: set[Chain]) -> Rules:
    return {
        chain: tuple(
            safe for rule in listed if (safe := _without_doubt(chain, rule, changed)) is not None
        )
        for chain, listed in rules.items()
    }


def _without_doubt(chain: Chain, rule: Rule, changed: set[Chain]) -> Rule | None:
    """Return `rule` so that it passes no packet by a doubtful mark, nor spares one by it."""
    by_mark = rule.mark is not None and changed & MARKERS.get(chain, set())
    by_connmark = rule.connmark is not None and changed and chain in MARKERS
    if not by_mark and not by_connmark:
        return rule
    if isinstance(rule.verdict, Accept):
        return None
    return replace(rule, mark=None, connmark=None)
