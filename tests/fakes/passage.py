"""What leads to a vault, without a kernel: the pair of links, and the translation of addresses."""

from collections.abc import Sequence
from dataclasses import replace

from gateway.errors import FirewallError, NetworkError
from gateway.firewall.nft.translation import render_translation
from gateway.policy.facts import Uplink
from gateway.policy.passage import INSIDE, OUTSIDE
from gateway.policy.translation import Translation


class FakePassage:
    """As `gateway.system.passage.VethPassage`; a test changes `ends` and `forwarding`.

    `ends` are the links that are there, by name. An uplink forwards if `forwarding` has it; there
    are those that `uplinks` names.
    """

    def __init__(self, *uplinks: str) -> None:
        self.uplinks = set(uplinks)
        self.ends: dict[str, Uplink] = {}
        self.forwarding: set[str] = set()

    def make(self, end: Uplink, uplinks: Sequence[str]) -> None:
        """Make both ends, if either is missing or another one."""
        self._require(uplinks)
        self.forwarding |= set(uplinks)
        if any(self._faults(end)):
            self.ends = {INSIDE: end, OUTSIDE: replace(end, name=OUTSIDE)}

    def remove(self) -> None:
        """Have neither end."""
        self.ends = {}

    def faults(self, end: Uplink, uplinks: Sequence[str]) -> tuple[str, ...]:
        """Return what is missing."""
        self._require(uplinks)
        still = (f"{name} does not forward" for name in uplinks if name not in self.forwarding)
        return (*self._faults(end), *still)

    def _faults(self, end: Uplink) -> list[str]:
        wanted = {INSIDE: end, OUTSIDE: replace(end, name=OUTSIDE)}
        return [
            f"{name} is another one" for name, it in wanted.items() if self.ends.get(name) != it
        ]

    def _require(self, uplinks: Sequence[str]) -> None:
        for name in set(uplinks) - self.uplinks:
            raise NetworkError("there is no such link", name)


class FakeTranslator:
    """As `gateway.firewall.nft.translation.TranslationTable`; a test changes `held`.

    The next call of `apply` is refused if `fails` is set.
    """

    def __init__(self) -> None:
        self.held: str | None = None
        self.fails = False

    def apply(self, translation: Translation) -> None:
        """Hold `translation`."""
        if self.fails:
            self.fails = False
            raise FirewallError("refused")
        self.held = render_translation(translation)

    def verify(self, translation: Translation) -> tuple[str, ...]:
        """Compare it with what is held."""
        if self.held is None:
            return ("the table is not there",)
        return () if self.held == render_translation(translation) else ("other rules",)
