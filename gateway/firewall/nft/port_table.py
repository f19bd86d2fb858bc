"""The redirection of forwarded ports, as a table of nftables.

Also where the rules are in the legacy tables: see `translation`.
"""

from gateway.errors import MissingError
from gateway.firewall.nft.firewall import FORWARDED
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import render_chain, render_rule, transaction
from gateway.firewall.nft.table import HeldTable
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


class PortTable:
    """The table `inet portcullis_ports`; the only writer of it."""

    def __init__(self, nft: Nft) -> None:
        self._table = HeldTable(FORWARDED, nft)

    @classmethod
    def find(cls, nft: Nft) -> "PortTable":
        """Return the table, which need not be there yet.

        Raises MissingError if this machine cannot have it, and FirewallError if it could not ask.
        """
        what = "VPN_PORT_FORWARDING_LISTENING_PORTS: the kernel has no redirection for nftables"
        if not nft.accepts(transaction(f"{FORWARDED}_trial", render_ports(_TRIAL))):
            raise MissingError(f"{what} (Linux 5.2)", LOAD)
        return cls(nft)

    def apply(self, redirection: PortRedirection | None) -> None:
        """Put `redirection` into force and read it back. Raises FirewallError."""
        self._table.put(render_ports(redirection))

    def verify(self, redirection: PortRedirection | None) -> tuple[str, ...]:
        """Return what is different from `redirection` in the kernel. Raises FirewallError."""
        return self._table.differences(render_ports(redirection))

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the packets refused since the last `apply`, as `Firewall.refused` has them."""
        counted = self._table.refused()
        return {(it, "in"): counted.get((it, "direct"), 0) for it in ("ipv4", "ipv6")}


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
