"""The redirection of forwarded ports, as a table of nftables.

Also where the rules are in the legacy tables: see `translation`.
"""

from gateway.errors import MissingError
from gateway.firewall.nft.firewall import FORWARDED
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import render_chain, render_rule
from gateway.firewall.nft.rendered import RenderedTable
from gateway.policy.redirected import PortRedirection
from gateway.policy.rules import Accept, Family, Ports, Rule, Transport

HEADS = {
    "direct": "filter hook prerouting priority mangle; policy accept;",
    "redirected": "nat hook prerouting priority dstnat; policy accept;",
}
"""The first sees a packet before it is redirected, with its flow."""

LOAD = "load its modules on the host (modprobe -a nft_chain_nat nft_redir)"
_RULE = Rule(
    why="trial", verdict=Accept(), protocol=Transport.UDP, destination_ports=Ports.one(1024)
)
_TRIAL = PortRedirection(((Family.IPV4, _RULE, 1025),), ((Family.IPV4, _RULE),))


def render_ports(redirection: PortRedirection | None) -> str:
    """Return the chains: what is between the braces of the table, nothing for None."""
    if redirection is None:
        return ""
    parts = {
        "direct": [render_rule(rule, family) for family, rule in redirection.direct],
        "redirected": [
            render_rule(rule, family, f"redirect to :{port}")
            for family, rule, port in redirection.redirected
        ],
    }
    return "\n".join(render_chain(name, HEADS[name], tuple(lines)) for name, lines in parts.items())


class PortTable(RenderedTable[PortRedirection | None]):
    """The table `inet portcullis_ports`; the only writer of it."""

    name = FORWARDED
    direction = "in"
    render = staticmethod(render_ports)

    @classmethod
    def find(cls, nft: Nft) -> "PortTable":
        """Return the table, which need not be there yet.

        Raises MissingError if this machine cannot have it, and FirewallError if it could not ask.
        """
        what = "VPN_PORT_FORWARDING_LISTENING_PORTS: the kernel has no redirection for nftables"
        if not cls.can_hold(nft, _TRIAL):
            raise MissingError(f"{what} (Linux 5.2)", LOAD)
        return cls(nft)
