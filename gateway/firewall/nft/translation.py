"""The translation of addresses between the uplinks and a vault, as a table of nftables.

Also where the rules are in the legacy tables: an engine keeps its own rules in the legacy table
`nat`, which the gateway leaves alone. A vault needs nftables in any case.
"""

from gateway.errors import MissingError
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import (
    device,
    quoted,
    render_chain,
    render_headers,
    render_members,
    render_rule,
    render_sets,
)
from gateway.firewall.nft.rendered import RenderedTable
from gateway.policy.passage import INNER
from gateway.policy.rules import Accept, Drop, Family, Rule
from gateway.policy.translation import Translation

TABLE = "inet portcullis_vault"
"""Family and name of the table."""

HEADS = {
    "arriving": "nat hook prerouting priority dstnat; policy accept;",
    "leaving": "nat hook postrouting priority srcnat; policy accept;",
    "untranslated": "filter hook postrouting priority srcnat + 1; policy accept;",
}
WORDS = {Family.IPV4: "ip", Family.IPV6: "ip6"}

_MODULES = "load its modules on the host: modprobe -a nft_chain_nat nft_nat nft_masq"
_RULE = Rule(why="trial", verdict=Accept())
_TRIAL = Translation(
    arriving=tuple((Family(end.version), _RULE, end.ip) for end in INNER.values()),
    leaving=tuple((family, _RULE) for family in Family),
    untranslated=tuple((family, Rule(why="trial", verdict=Drop())) for family in Family),
)


def render_translation(translation: Translation) -> str:
    """Return the chains and sets: what is between the braces of the table."""
    parts = {
        "arriving": [
            _line(family, rule, f"dnat {WORDS[family]} to {address}")
            for family, rule, address in translation.arriving
        ],
        "leaving": [_line(*entry, "masquerade") for entry in translation.leaving],
        "untranslated": [render_rule(rule, family) for family, rule in translation.untranslated],
    }
    sets = render_sets((family, rule) for family, rule, _ in translation.arriving)
    chains = (
        render_chain(name, HEADS[name], tuple(lines)) for name, lines in parts.items() if lines
    )
    return "\n".join((*sets, *chains))


def _line(family: Family, rule: Rule, action: str) -> str:
    links = {"iifname": rule.in_interface, "oifname": rule.out_interface}
    words = (
        f"meta nfproto ipv{family.value}",
        *(f"{field} {device(link)}" for field, link in links.items() if link is not None),
        *render_headers(rule, family),
        *render_members(rule, family),
        action,
        f"comment {quoted(rule.why)}",
    )
    return " ".join(words)


class TranslationTable(RenderedTable[Translation]):
    """The table `inet portcullis_vault`; the only writer of it."""

    name = TABLE
    render = staticmethod(render_translation)

    @classmethod
    def find(cls, nft: Nft) -> "TranslationTable":
        """Return the table, which need not be there yet.

        Raises MissingError if this kernel cannot have it, and FirewallError if it could not ask.
        """
        if not cls.can_hold(nft, _TRIAL):
            raise MissingError("the kernel has no NAT for nftables (Linux 5.2)", _MODULES)
        return cls(nft)
