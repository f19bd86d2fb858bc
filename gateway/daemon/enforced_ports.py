"""The redirection of forwarded ports, as a part as in `enforced`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.daemon.enforced import Refusing, Reserve
from gateway.daemon.enforced_hijack import parts_of_hijack
from gateway.daemon.ports import Closed, PortRedirector
from gateway.policy.wanted import Wanted

if TYPE_CHECKING:
    from gateway.policy.redirected import PortRedirection


class EnforcedPorts(Refusing):
    """Which forwarded ports go to another port here.

    It comes after the rules, which close a port by themselves. It is not a barrier: what it
    redirects, the rules have opened.
    """

    follows_links = False

    def __init__(self, redirector: PortRedirector, reserve: Reserve) -> None:
        super().__init__(reserve, None)
        self._redirector = redirector

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return False: links are named, but need not be there."""
        del error
        return False

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the table."""
        return self._redirector.verify(wanted.ports)

    def _read_refused(self) -> Mapping[tuple[str, str], int]:
        return self._redirector.refused()

    def _part_of(self, wanted: Wanted) -> tuple["PortRedirection | None"]:
        return (wanted.ports,)

    def _put(self, wanted: Wanted) -> None:
        self._redirector.apply(wanted.ports)
        self.refused.restart_counts()


def parts_of_redirection(closed: Closed, reserve: Reserve) -> list[Refusing]:
    """Return what redirects questions, and what redirects ports, as far as there is either."""
    parts: list[Refusing] = parts_of_hijack(closed.redirector, reserve)
    if closed.port_redirector:
        parts.append(EnforcedPorts(closed.port_redirector, reserve))
    return parts
