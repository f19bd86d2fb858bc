"""Counts of the kernel's that begin anew whenever somebody replaces what counts, added up."""

from collections import Counter
from collections.abc import Mapping

Where = tuple[str, str]
"""Family and direction."""


class Tally:
    """A total that never goes back."""

    def __init__(self) -> None:
        self._before: Counter[Where] = Counter()
        self._since: Mapping[Where, int] = {}

    def read(self, counts: Mapping[Where, int]) -> None:
        """Take `counts` as what was counted since they last began anew.

        Where one is smaller than before, they did so unnoticed: somebody else's hands.
        """
        if any(counts.get(where, 0) < number for where, number in self._since.items()):
            self.begin_anew()
        self._since = dict(counts)

    def begin_anew(self) -> None:
        """Say that the kernel counts from zero again."""
        self._before.update(self._since)
        self._since = {}

    @property
    def total(self) -> Counter[Where]:
        """Everything counted so far; what was looked at and never counted is there with zero."""
        total = Counter(self._before)
        total.update(self._since)
        return total
