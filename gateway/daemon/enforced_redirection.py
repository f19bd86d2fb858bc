"""What the kernel sends to another port here, as parts as in `enforced`."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from gateway.daemon.enforced import Refusing, Reserve
from gateway.daemon.ports import Closed, Redirector
from gateway.policy.wanted import Wanted

R = TypeVar("R")


class EnforcedRedirection(Refusing, Generic[R]):
    """One redirection: of questions to the gateway's own resolver, or of forwarded ports.

    It comes after the rules, which close a port by themselves, and which open to questions only
    when there is a handshake: by then it is in force. It is not a barrier: the rules have opened
    the ports that it redirects, and the questions could only have left in the tunnel.
    """

    follows_links = False

    def __init__(
        self, redirector: Redirector[R], part_of: Callable[[Wanted], R | None], reserve: Reserve
    ) -> None:
        super().__init__(reserve, None)
        self._redirector = redirector
        self._redirection_of = part_of

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return False: links are named, but need not be there."""
        del error
        return False

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the table."""
        return self._redirector.verify(self._redirection_of(wanted))

    def _read_refused(self) -> Mapping[tuple[str, str], int]:
        return self._redirector.refused()

    def _part_of(self, wanted: Wanted) -> tuple[R | None]:
        return (self._redirection_of(wanted),)

    def _put(self, wanted: Wanted) -> None:
        self._redirector.apply(self._redirection_of(wanted))
        self.refused.restart_counts()


def parts_of_redirection(closed: Closed, reserve: Reserve) -> list[Refusing]:
    """Return what redirects questions, and what redirects ports, as far as there is either."""
    parts: list[Refusing] = []
    if it := closed.redirector:
        parts.append(EnforcedRedirection(it, lambda wanted: wanted.redirection, reserve))
    if ports := closed.port_redirector:
        parts.append(EnforcedRedirection(ports, lambda wanted: wanted.ports, reserve))
    return parts
