"""What is looked at while a calm tunnel needs nothing else, without a turn of the loop."""

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import LinksAndRoutes
from gateway.errors import KERNEL
from gateway.model import INTERFACE
from gateway.policy.agenda import rests
from gateway.policy.situation import Situation
from gateway.policy.timing import Moment


class Rest:
    """Lasts as long as the kernel has what is wanted, and the tunnel carries nothing."""

    def __init__(self, kernel: Enforcement, network: LinksAndRoutes) -> None:
        self._kernel = kernel
        self._network = network
        self._carried: bytes | None = None

    def begin(self) -> None:
        """Remember what the tunnel has carried; to be called before its counters are sampled."""
        try:
            self._carried = self._network.carried(INTERFACE)
        except KERNEL:
            self._carried = None

    def lasts(self, situation: Situation, moment: Moment) -> bool:
        """Return whether nothing else is due, and all is as it was when it was last compared.

        Where that could not be found out, it has ended: the turn that follows meets the same error,
        and answers it.
        """
        if self._carried is None or not rests(situation, moment):
            return False
        try:
            has_moved = self._network.carried(INTERFACE) != self._carried
            return not has_moved and self._kernel.is_in_place()
        except KERNEL:
            return False
