"""A firewall without a kernel: the whole protocol, in memory, for tests of what uses it."""

from gateway.errors import FirewallError
from gateway.firewall.xtables.render import render
from gateway.policy.limits import Limit
from gateway.policy.rules import Chain, Family, Rule, Ruleset

OPEN = dict.fromkeys(Chain, "ACCEPT")
CLOSED = {chain: "DROP" if chain.table == "filter" else "ACCEPT" for chain in Chain}


class FakeFirewall:
    """Holds one ruleset; `applied` is every ruleset ever put into force, in order.

    The attributes `rules` and `policies` stand for the kernel: a test changes them as other
    programs would. With `fails` set, the next `apply` fails as a refused commit does.
    """

    name = "fake"
    limits: tuple[Limit, ...] = ()

    def __init__(self) -> None:
        self.rules: dict[tuple[Family, Chain], tuple[Rule, ...]] = {}
        self.policies: dict[tuple[Family, Chain], str] = {}
        self.applied: list[Ruleset] = []
        self.fails = False
        self.counts: dict[tuple[str, str], int] = {}

    def apply(self, ruleset: Ruleset) -> None:
        """Hold `ruleset` instead of the former one; see `Firewall.apply`."""
        for family in Family:
            try:
                render(ruleset, family)
            except ValueError as err:
                raise FirewallError(str(err)) from err
        if self.fails:
            self.fails = False
            raise FirewallError("refused")
        for family in Family:
            for chain in Chain:
                self.rules[family, chain] = ruleset.of(family).get(chain, ())
                self.policies[family, chain] = CLOSED[chain]
        self.applied.append(ruleset)
        self.counts.clear()

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Compare what is held with `ruleset`; see `Firewall.verify`."""
        lines = []
        for family in Family:
            for chain in Chain:
                if self.rules.get((family, chain), ()) != ruleset.of(family).get(chain, ()):
                    lines.append(f"{family.name} {chain.name}: other rules")
                if self.policies.get((family, chain), OPEN[chain]) != CLOSED[chain]:
                    lines.append(f"{family.name} {chain.name}: another policy")
        return tuple(lines)

    def refused(self) -> dict[tuple[str, str], int]:
        """Return what a test says that was refused since the last `apply`."""
        return dict(self.counts)
