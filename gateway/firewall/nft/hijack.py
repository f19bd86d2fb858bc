"""The redirection of questions to the gateway's own resolver, as a table of nftables.

Also where the rules are in the legacy tables: see `translation`.
"""

from gateway.errors import MissingError
from gateway.firewall.nft.firewall import HIJACK
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import render_chain, render_rule
from gateway.firewall.nft.rendered import RenderedTable
from gateway.policy.hijack import Redirection, Rules
from gateway.policy.rules import Accept, Family, Ports, Rule, Transport
from gateway.policy.upstreams import REDIRECTED

HEADS = {
    "redirected": "nat hook output priority -100; policy accept;",
    "refused": "filter hook output priority filter; policy accept;",
    "astray": "filter hook postrouting priority filter; policy accept;",
}
"""The second sees no other link than the first: a hook keeps the one that a packet had before it
was redirected (net/netfilter/core.c, nf_hook_state). The third sees the real one."""

ACTION = f"redirect to :{REDIRECTED}"
OFF = "or set DNS_HIJACK=off"
_LOAD = f"load its modules on the host (modprobe -a nft_chain_nat nft_redir), {OFF}"
_ANY = tuple(
    (
        family,
        Rule(
            why="trial",
            verdict=Accept(),
            user=1,
            protocol=Transport.UDP,
            destination_ports=Ports.one(53),
        ),
    )
    for family in Family
)
_TRIAL = Redirection(_ANY, _ANY, _ANY, _ANY)


def render_redirection(redirection: Redirection | None) -> str:
    """Return the chains: what is between the braces of the table, nothing for None."""
    if redirection is None:
        return ""
    parts = {
        "redirected": [
            *_lines(redirection.left),
            *(render_rule(rule, family, ACTION) for family, rule in redirection.redirected),
        ],
        "refused": _lines(redirection.refused),
        "astray": _lines(redirection.astray),
    }
    spared = _lines(redirection.spared)
    return "\n".join(
        render_chain(name, HEADS[name], (*spared, *lines)) for name, lines in parts.items()
    )


def _lines(rules: Rules) -> list[str]:
    return [render_rule(rule, family) for family, rule in rules]


class HijackTable(RenderedTable[Redirection | None]):
    """The table `inet portcullis_names`; the only writer of it."""

    name = HIJACK
    direction = "out"
    render = staticmethod(render_redirection)

    @classmethod
    def find(cls, nft: Nft) -> "HijackTable":
        """Return the table, which need not be there yet.

        Raises MissingError if this machine cannot have it, and FirewallError if it could not ask.
        """
        try:
            can_be = cls.can_hold(nft, _TRIAL)
        except MissingError as err:
            raise MissingError(f"DNS_HIJACK=on: {err.missing}", f"{err.remedy}, {OFF}") from err
        if not can_be:
            raise MissingError(
                "DNS_HIJACK=on: the kernel has no redirection for nftables (Linux 5.2)", _LOAD
            )
        return cls(nft)
