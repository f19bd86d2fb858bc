"""The redirection of questions to the gateway's own resolver, as a part as in `enforced`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.daemon.enforced import Refusing, Reserve
from gateway.daemon.ports import Redirector
from gateway.policy.wanted import Wanted

if TYPE_CHECKING:
    from gateway.policy.hijack import Redirection


class EnforcedRedirection(Refusing):
    """Which questions go to the gateway's own resolver.

    It comes after the rules, which open only when there is a handshake: by then it is in force. It
    is not a barrier, because what it redirects could only have left in the tunnel.
    """

    follows_links = False

    def __init__(self, redirector: Redirector, reserve: Reserve) -> None:
        super().__init__(reserve, None)
        self._redirector = redirector

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return False: no link but loopback is named."""
        del error
        return False

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the table."""
        return self._redirector.verify(wanted.redirection)

    def _read_refused(self) -> Mapping[tuple[str, str], int]:
        return self._redirector.refused()

    def _part_of(self, wanted: Wanted) -> tuple["Redirection | None"]:
        return (wanted.redirection,)

    def _put(self, wanted: Wanted) -> None:
        self._redirector.apply(wanted.redirection)
        self.refused.restart_counts()


def parts_of_hijack(redirector: Redirector | None, reserve: Reserve) -> list[Refusing]:
    """Return the part, none without a redirector."""
    return [EnforcedRedirection(redirector, reserve)] if redirector else []
