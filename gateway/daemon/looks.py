"""The looks at a namespace that changes while something is put into force for it."""

from gateway.model import Facts
from gateway.policy.ways import steady

LOOKS = 5
"""How often the namespace is looked at again because something was refused that is about links."""


class Looks:
    """The looks at a namespace that changes while something is put into force for it."""

    def __init__(self, first: Facts) -> None:
        self._all = [first]

    @property
    def are_over(self) -> bool:
        """Whether the namespace was looked at often enough for an error to count."""
        return len(self._all) > LOOKS

    def add(self, found: Facts) -> Facts:
        """Return what to put into force next: `found`, or in the end the uplinks that stayed.

        A link that never stays the same is not an uplink then, which closes it.
        """
        self._all.append(found)
        return steady(self._all) if self.are_over else found
