"""The nftables firewall: one table for both families, replaced whole in one transaction.

Other tables are left alone: Docker's resolver keeps one of its own in the same namespace.

A transaction changes all chains at once, but a packet passes them one after the other, so where
marks change it takes two: `gateway.policy.transition`.

The legacy tables are in force as well. Once they have been seen to pass everything, what gets
into them, by a second gateway's lock for one, is drift, and goes when this table has been read
back.
"""

from gateway.errors import MissingError
from gateway.firewall.marks import FLOW, PASSED_FIREWALL, Marks
from gateway.firewall.nft.marks import mark_of
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import TABLE, render_chains, transaction
from gateway.firewall.nft.table import HeldTable
from gateway.firewall.xtables import legacy
from gateway.policy.limits import Limit
from gateway.policy.rules import (
    Accept,
    Chain,
    CtDirection,
    CtState,
    Family,
    Ports,
    PortSet,
    Reject,
    Rule,
    Ruleset,
    SetConnmark,
    Transport,
)
from gateway.policy.transition import interim
from gateway.system import process
from gateway.system.features import wait_for_packets_in_flight
from gateway.system.netns import OWN, Netns

_MODULES = (
    "load the modules nf_tables, nft_ct and nft_reject_inet on the host,"
    " or use FIREWALL_BACKEND=iptables"
)


HIJACK = "inet portcullis_names"
FORWARDED = "inet portcullis_ports"
"""The table of `hijack`, in which many gateways have nothing."""

DIRECTIONS = {"input": "in", "forward": "forward", "output": "out"}
"""The words for what each deciding chain refuses."""


class NftablesFirewall:
    """The table `inet portcullis`; the only writer of it."""

    name = "nftables"
    limits: tuple[Limit, ...] = ()

    def __init__(self, nft: Nft | None = None) -> None:
        nft = nft or Nft()
        self._table = HeldTable(TABLE, nft)
        self._netns = nft.netns
        # No program of ours can empty what is in a vault, and it can only refuse.
        self._leftovers = legacy.Leftovers(nft.netns) if nft.netns.can_be_entered else None
        self._former: Ruleset | None = None
        self._rendered: tuple[Ruleset, str] | None = None
        self._alone = False

    @classmethod
    def find(cls, nft: Nft | None = None) -> "NftablesFirewall":
        """Return the firewall of this kernel for the namespace of `nft`.

        What the kernel has is tried without loading anything.

        Raises MissingError when program or kernel cannot carry a ruleset, or when that cannot
        be found out without CAP_NET_ADMIN.
        """
        nft = nft or Nft()
        if not nft.is_in_kernel():
            raise MissingError("the kernel has no nftables", _MODULES)
        if not nft.accepts(transaction(f"{TABLE}_trial", render_chains(_TRIAL))):
            raise MissingError("the kernel's nftables lacks a part that the rules need", _MODULES)
        return cls(nft)

    def apply(self, ruleset: Ruleset) -> None:
        """Put `ruleset` into force for both families, and read it back; see `Firewall.apply`."""
        between = interim(ruleset, self._changed(ruleset))
        if between != ruleset:
            self._table.put_unread(render_chains(between))
            wait_for_packets_in_flight()
        self._former = None
        self._table.put(self._body(ruleset))
        self._former = ruleset
        if self._alone and self._leftovers and self._leftovers.find():
            wait_for_packets_in_flight()
            legacy.empty(self._netns)

    def _changed(self, ruleset: Ruleset) -> dict[Family, list[Chain]]:
        """Return the marking chains that may not be in force as `ruleset` has them."""
        former = self._former
        return {
            family: [
                chain
                for chain in Chain
                if chain.table == "mangle"
                and (
                    former is None
                    or former.of(family).get(chain, ()) != ruleset.of(family).get(chain, ())
                )
            ]
            for family in Family
        }

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Compare the kernel with `ruleset`: one line for each difference.

        Raises FirewallError when the kernel cannot be read.
        """
        others = self._leftovers.find() if self._leftovers else ()
        self._alone = self._alone or not others
        return (*self._table.differences(self._body(ruleset)), *(others if self._alone else ()))

    def _body(self, ruleset: Ruleset) -> str:
        """Return the text of `ruleset`; the last one is remembered, since it is compared often."""
        if self._rendered is None or self._rendered[0] is not ruleset:
            self._rendered = ruleset, render_chains(ruleset)
        return self._rendered[1]

    def marks(self) -> Marks:
        """Return the secret marks in the kernel's rules. Raises FirewallError."""
        found = (
            mark_of(self._table.held(chain.name.lower()), why)
            for chain, why in (FLOW, PASSED_FIREWALL)
        )
        return Marks(*found)

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the packets refused, by family and direction; see `Firewall.refused`."""
        counted = self._table.refused()
        return {
            (family, way): counted.get((family, chain), 0)
            for family in ("ipv4", "ipv6")
            for chain, way in DIRECTIONS.items()
        }


def remove_leftover(netns: Netns = OWN, table: str = TABLE) -> None:
    """Remove the `table` of an earlier run from `netns`, when there is one. Raises FirewallError.

    Without the program there is nothing to be done; what is left over can only refuse.
    """
    try:
        process.find_program("nft")
    except MissingError:
        return
    nft = Nft(netns=netns)
    if nft.is_in_kernel() and not nft.surely_lacks(table):
        wait_for_packets_in_flight()
        HeldTable(table, nft).remove()


def _trial() -> Ruleset:
    """Return rules that use everything that any ruleset may ask of the kernel."""
    refuse = (
        Rule(why="trial", verdict=Reject(tcp_reset=True), protocol=Transport.TCP, syn=True),
        Rule(
            why="trial",
            verdict=Accept(),
            mark=1,
            connmark=1,
            ct_states=frozenset({CtState.ESTABLISHED}),
            ct_direction=CtDirection.REPLY,
        ),
        Rule(why="trial", verdict=Reject(), extra_headers=True),
        Rule(why="trial", verdict=Reject(), user=1),
        Rule(
            why="trial",
            verdict=Accept(),
            protocol=Transport.UDP,
            source_ports=PortSet("ports", "trial", (Ports(1, 2), Ports(4, 4))),
        ),
    )
    chains = {
        Chain.OUTPUT: refuse,
        Chain.PREROUTING: (Rule(why="trial", verdict=SetConnmark(1)),),
    }
    return Ruleset(**{family.name.lower(): chains for family in Family})


_TRIAL = _trial()
