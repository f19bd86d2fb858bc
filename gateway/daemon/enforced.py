"""The parts of what the kernel has to hold: rules, egress guard, link settings, routing.

Each has the same two methods: `apply` puts what is wanted into force, and `differences` compares
the kernel with it. A part knows what it last put into force and read back. After a failed attempt
it knows nothing, so the next `apply` puts everything there again.
"""

import errno
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress

from gateway.daemon.ports import EgressGuard, LinksAndRoutes
from gateway.errors import FirewallError, KernelError, NetworkError, is_shortage
from gateway.firewall import Firewall
from gateway.policy.facts import Facts
from gateway.policy.firewall import closed
from gateway.policy.guard import GuardRules, guard_for
from gateway.policy.report import Tally
from gateway.policy.routing import LOCKED
from gateway.policy.rules import Ruleset
from gateway.policy.situation import NOTHING_SEEN
from gateway.policy.tables import Routing
from gateway.policy.wanted import Wanted

_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.ENETDOWN}
"""What the kernel answers about a link, an address or a route that is not there (any more)."""

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}

Reserve = Callable[[], AbstractContextManager[None]]
"""Lends descriptors to what has to be put into force when there are none left."""


class Enforced(ABC):
    """One part of what the kernel has to hold.

    `is_barrier` says whether packets may get out when another program changes it. `follows_links`
    says whether the kernel can refuse it because a link has gone.
    """

    is_barrier = False
    follows_links = True

    def __init__(self, reserve: Reserve, held: object = None) -> None:
        """`held` is what is in force already, in terms of `_part_of`."""
        self._reserve = reserve
        self._held = held

    def holds(self, wanted: Wanted) -> bool:
        """Return whether `wanted` was put into force last, and read back."""
        return self._held == self._part_of(wanted)

    def forget(self) -> None:
        """Take what is in force as unknown: the next `apply` does all of it."""
        self._held = None

    def apply(self, wanted: Wanted) -> None:
        """Put `wanted` into force, unless it is. Raises KernelError."""
        if self.holds(wanted):
            return
        self._held = None
        try:
            self._put(wanted)
        except (KernelError, OSError) as err:
            if err.errno not in _NO_DESCRIPTORS:
                raise
            with self._reserve():
                self._put(wanted)
        self._held = self._part_of(wanted)

    def revert(self, wanted: Wanted) -> None:
        """Put `wanted` into force because another program has changed it. Raises KernelError."""
        self.forget()
        self.apply(wanted)

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return whether `error` can be the answer about a link that was not there for a moment."""
        return isinstance(error, NetworkError) and error.errno in _GONE

    @abstractmethod
    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Return what is different from `wanted` in the kernel, one line each.

        Raises KernelError.
        """

    @abstractmethod
    def _part_of(self, wanted: Wanted) -> object:
        """Return what of `wanted` is put into force here."""

    @abstractmethod
    def _put(self, wanted: Wanted) -> None:
        """Put `wanted` into force. Raises KernelError."""


class Refusing(Enforced):
    """A part that refuses packets; `refused` has how many, whatever rules it had.

    `counts_first` says whether those that the former rules refused are counted before others come.
    """

    counts_first = True

    def __init__(self, reserve: Reserve, held: object) -> None:
        super().__init__(reserve, held)
        self.refused = Tally()

    def apply(self, wanted: Wanted) -> None:
        """Put `wanted` into force, unless it is. Raises KernelError."""
        if self.counts_first and self._held is not None and not self.holds(wanted):
            with suppress(FirewallError):  # the rules matter more than their counts
                self.count_refused()
        super().apply(wanted)

    def revert(self, wanted: Wanted) -> None:
        """Put `wanted` into force; what was refused since the last count is counted first."""
        with suppress(FirewallError):  # the rules matter more than their counts
            self.count_refused()
        super().revert(wanted)

    def count_refused(self) -> None:
        """Read how many packets were refused. Raises FirewallError."""
        self.refused.read(self._read_refused())

    @abstractmethod
    def _read_refused(self) -> Mapping[tuple[str, str], int]:
        """Return what the kernel has counted since the last `_put`. Raises FirewallError."""


class EnforcedRules(Refusing):
    """The firewall's rules, which the lock has closed."""

    is_barrier = True
    follows_links = False

    def __init__(self, firewall: Firewall, reserve: Reserve) -> None:
        super().__init__(reserve, closed())
        self._firewall = firewall

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return False: rules name links that need not be there."""
        del error
        return False

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the rules."""
        return self._firewall.verify(self._part_of(wanted))

    def _read_refused(self) -> Mapping[tuple[str, str], int]:
        return self._firewall.refused()

    def _part_of(self, wanted: Wanted) -> Ruleset:
        return wanted.rules

    def _put(self, wanted: Wanted) -> None:
        self._firewall.apply(self._part_of(wanted))
        self.refused.restart_counts()


class EnforcedGuard(Refusing):
    """The egress guard that goes with the rules.

    `guarded` are the indexes of the links that have one; None while it is still the lock's.
    """

    is_barrier = True
    counts_first = False  # one more run of nft would delay a lock

    def __init__(
        self, guard: EgressGuard, reserve: Reserve = nullcontext, closed_for: Facts = NOTHING_SEEN
    ) -> None:
        """Take over a guard that is closed, for the links of `closed_for` by `close_guard`."""
        super().__init__(reserve, (closed(), closed_for))
        self._guard = guard
        self._made: tuple[Wanted, GuardRules] | None = None
        self.guarded = _indexes(closed_for) if closed_for.uplinks else None

    def may_miss_a_link(self, error: BaseException) -> bool:
        """Return True where the guard was refused.

        Kernels before Linux 6.16 refuse all of it when one device is not there, and nft does not
        pass on the number of the error.
        """
        return isinstance(error, FirewallError) and not is_shortage(error)

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the guard."""
        return self._guard.verify(self._guard_for(wanted))

    def _read_refused(self) -> Mapping[tuple[str, str], int]:
        return self._guard.refused()

    def _guard_for(self, wanted: Wanted) -> GuardRules:
        """Return the guard for `wanted`; the last one is remembered, since it is compared often."""
        if self._made is None or self._made[0] is not wanted:
            self._made = wanted, guard_for(wanted.rules, wanted.facts)
        return self._made[1]

    def _part_of(self, wanted: Wanted) -> tuple[Ruleset, Facts]:
        return wanted.rules, wanted.facts

    def _put(self, wanted: Wanted) -> None:
        self._guard.apply(self._guard_for(wanted))
        self.guarded = _indexes(wanted.facts)
        self.refused.restart_counts()


def _indexes(facts: Facts) -> frozenset[int]:
    return frozenset(uplink.index for uplink in facts.uplinks)


class EnforcedSettings(Enforced):
    """The per-device settings of each uplink, which a link keeps for as long as it exists."""

    def __init__(self, network: LinksAndRoutes, reserve: Reserve) -> None:
        super().__init__(reserve, frozenset())
        self._network = network
        self._prepared: frozenset[int] = frozenset()

    def revert(self, wanted: Wanted) -> None:
        """Give every uplink its settings again."""
        self._prepared = frozenset()
        super().revert(wanted)

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare the settings of every uplink."""
        names = (uplink.name for uplink in wanted.facts.uplinks)
        return tuple(line for name in names for line in self._network.device_drift(name))

    def _part_of(self, wanted: Wanted) -> frozenset[int]:
        return _indexes(wanted.facts)

    def _put(self, wanted: Wanted) -> None:
        self._prepared &= self._part_of(wanted)
        for uplink in wanted.facts.uplinks:
            if uplink.index not in self._prepared:
                self._network.prepare(uplink.name)
                self._prepared |= {uplink.index}


class EnforcedRouting(Enforced):
    """The gateway's routes and policy rules; the kernel drops routes with their links."""

    def __init__(self, network: LinksAndRoutes, reserve: Reserve) -> None:
        super().__init__(reserve, (LOCKED, Facts()))
        self._network = network

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        """Compare routes and policy rules."""
        return self._network.routing_drift(self._part_of(wanted)[0])

    def _part_of(self, wanted: Wanted) -> tuple[Routing, Facts]:
        return wanted.routing, wanted.facts

    def _put(self, wanted: Wanted) -> None:
        self._network.apply_routing(self._part_of(wanted)[0])


def refused_by(tallies: Iterable[Tally]) -> tuple[tuple[str, str, int], ...]:
    """Return the sums of `tallies`, by family and direction."""
    total: Counter[tuple[str, str]] = Counter()
    for tally in tallies:
        total.update(tally.total)
    return tuple((*where, packets) for where, packets in sorted(total.items()))
