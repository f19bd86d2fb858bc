"""What the kernel has to hold for a state, put there and kept there: rules, guard, routes.

Always the rules first. When the rules of a state are refused, the closed ones are tried in their
place; when the kernel refuses those too, the links go down, and come up again once the closed rules
are in force. A shortage (`gateway.errors.is_shortage`) is not a refusal: the rules that were read
back last stay in force. Nothing here accepts, restores or flushes after an error.

What is put into force and compared is always what the current state wants, never what a former
state wanted: after `close` has been called, whatever came of it, that is the closed ruleset.
"""

from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress

import structlog

from gateway.daemon.enforced import (
    Enforced,
    EnforcedGuard,
    EnforcedRouting,
    EnforcedRules,
    EnforcedSettings,
    Reserve,
    refused_by,
)
from gateway.daemon.enforced_inside import parts_of_vault
from gateway.daemon.enforced_redirection import parts_of_redirection
from gateway.daemon.last_barrier import shut_links
from gateway.daemon.looks import LOOKS, Looks, Observer
from gateway.daemon.ports import Closed, EgressGuard, LinksAndRoutes
from gateway.errors import KERNEL, KernelError, is_shortage
from gateway.firewall import Firewall
from gateway.model import Config, Tunnel
from gateway.policy.facts import Facts
from gateway.policy.states import Locked, State
from gateway.policy.wanted import Wanted, basis_of, wanted_in

_ROUTES_IGNORED = "the main table has more routes than the gateway reads; the others are ignored"
_FEWER_ROUTES = "stop the router that advertises them, or set net.ipv6.conf.eth0.accept_ra to 0"

_Failure = tuple[Enforced, KernelError | OSError | MemoryError]


class Enforcement:
    """Keeps the kernel in step with a state and the namespace.

    `config` may be replaced. `facts` are what the namespace looked like last; `drift` counts the
    changes by other programs, and `drifted` has those that were reverted last.
    """

    def __init__(
        self,
        config: Config,
        firewall: Firewall,
        guard: EgressGuard | None,
        network: LinksAndRoutes,
        reserve: Reserve = nullcontext,
        closed: Closed = Closed(),  # noqa: B008 - it is frozen
    ) -> None:
        """Take over what is closed already; the parts are those of `Parts`."""
        self.config = config
        self._network = network
        self._observer = Observer(network, closed.inside.network if closed.inside else None)
        self._log = structlog.get_logger()
        self._rules = EnforcedRules(firewall, reserve)
        self._guard = EnforcedGuard(guard, reserve, closed.seen) if guard else None
        self._vault = closed.inside.vault if closed.inside else None
        barriers, others = parts_of_vault(closed.inside, reserve)
        self._barriers = [it for it in (self._rules, self._guard, *barriers) if it]
        self._refusing = [*self._barriers, *parts_of_redirection(closed, reserve)]
        self._parts: list[Enforced] = [
            *self._refusing,
            EnforcedSettings(network, reserve),
            EnforcedRouting(network, reserve),
            *others,
        ]
        self._state: State = Locked()
        self._way_to: Tunnel | None = None
        self._made: tuple[State, Tunnel | None, Config, object, Wanted] | None = None
        self._are_some_down = False
        self.are_links_down = False
        self.facts = Facts()
        self.drift = 0
        self.drifted: tuple[str, ...] = ()

    @property
    def kept_down(self) -> tuple[str, ...]:
        """Links that have to stay down, each with the reason."""
        return self._observer.kept_down

    @property
    def refused(self) -> tuple[tuple[str, str, int], ...]:
        """The packets refused so far, by family and direction, as they were last counted."""
        return refused_by(part.refused for part in self._refusing)

    def enter(self, state: State) -> None:
        """Put what `state` needs into force: rules, then routes. Raises KernelError."""
        if self.are_links_down:
            self.close()
        self._state, self._way_to = state, None
        self._bring_into_step()

    def close(self) -> None:
        """Put the closed ruleset and the closed guard into force, whatever the state.

        Raises what went wrong. After a shortage the former rules stay in force; after anything else
        the links are down, until a call succeeds.
        """
        self._state, self._way_to = Locked(), None
        for part in self._barriers:
            part.forget()
        try:
            self._rules.apply(self._wanted())  # without a look first, which could fail
            self._put(self._barriers)
        except BaseException as err:
            if not is_shortage(err):
                self.shut()
            raise
        self._reopen()

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...] | None:
        """Set the links down, or `only` those with these indexes.

        Return those that are still up, None when that is not known; the log has them too.
        """
        if only is None:
            self.are_links_down = True
        else:
            self._are_some_down = True
        return shut_links(lambda: self._network.shut(only))

    def _reopen(self) -> None:
        """Set the links up again that were set down while nothing could be closed."""
        if self.are_links_down or self._are_some_down:
            problems = self._network.reopen()
            self.are_links_down = self._are_some_down = False
            self._log.warning("links restored; closed by rules", problems=problems)

    def route_to_server(self, tunnel: Tunnel) -> None:
        """Make the way to the server of `tunnel`, before its interface, until the next state.

        Raises KernelError.
        """
        self._way_to = tunnel
        self._bring_into_step()

    def look_around(self) -> None:
        """Read what the namespace looks like, and bring everything into step with it.

        Raises KernelError.
        """
        facts = self._observer.look()
        if facts != self.facts:
            if self.facts.all_routes and not facts.all_routes:
                self._log.warning("too many routes", problem=_ROUTES_IGNORED, remedy=_FEWER_ROUTES)
            self.facts = facts
            self._log.debug("namespace changed", uplinks=[uplink.name for uplink in facts.uplinks])
        self._bring_into_step()

    def put_back_drift(self) -> None:
        """Compare the kernel with what is wanted, and revert what other programs changed.

        `drifted` has what was reverted; it is counted and logged. What a failed attempt left undone
        is done first, and is not drift. The namespace is taken as it was last found. Where it has
        other links by now, a difference that is about links is not drift: the next look brings it
        into step. Raises KernelError.
        """
        self._bring_into_step()
        wanted = self._wanted()
        drift: list[str] = []
        try:
            for part in self._parts:
                drift += self._reverted(part, wanted)
        finally:  # what was reverted before another part failed counts too
            self.drift += len(drift)
            self.drifted = tuple(drift)
            if drift:
                self._log.warning("reverted external changes", drift=drift)

    def is_in_place(self) -> bool:
        """Return whether the kernel has what is wanted, and the namespace looks as it did.

        False after drift, until a comparison has found none. Changes no rule and no route. Raises
        KernelError.
        """
        kept_down = self.kept_down
        if self.drifted or self._observer.look() != self.facts or self.kept_down != kept_down:
            return False
        wanted = self._wanted()
        return all(part.holds(wanted) and not part.differences(wanted) for part in self._parts)

    def count_refused(self) -> None:
        """Read the kernel's counters of refused packets; what cannot be read stays as it was."""
        for part in self._refusing:
            with suppress(*KERNEL):
                part.count_refused()

    def _bring_into_step(self) -> None:
        """Put every part of the state into force. Raises KernelError."""
        self._put(self._parts)
        if self._are_some_down and not self.are_links_down:
            self._reopen()  # they have a guard now

    def _put(self, parts: Sequence[Enforced]) -> None:
        """Put `parts` into force in the namespace as found.

        A link can go, come or be renamed meanwhile, and the kernel then refuses what is about it.
        So an error counts only if the namespace still looks as it did; else it is looked at again.
        A link that was renamed twice looks as it did too: an answer that can mean that it was not
        there counts only after all attempts. Raises KernelError.
        """
        if not self._observer.has_looked and not all(part.holds(self._wanted()) for part in parts):
            self.facts = self._observer.look()
        looks = Looks(self.facts)
        while failure := self._first_failure(parts):
            part, error = failure
            if is_shortage(error):
                self._shut_unguarded()
            if is_shortage(error) or not isinstance(error, KernelError) or looks.are_over:
                raise error
            found = self._observer.look()
            if found == self.facts and not part.may_miss_a_link(error):
                raise error
            self._log.debug("retrying after namespace change", problem=str(error))
            self.facts = looks.add(found)
            for other in parts:
                if other.follows_links:
                    other.forget()

    def _first_failure(self, parts: Sequence[Enforced]) -> _Failure | None:
        """Put `parts` into force, in order, until one fails; return it with its error."""
        wanted = self._wanted()
        for part in parts:
            try:
                part.apply(wanted)
            except KERNEL as err:
                return part, err
        return None

    def _shut_unguarded(self) -> None:
        """Set links down that came up and could not be given a guard; they wait for it.

        Looks first: a link may have come up since the shortage began.
        """
        if self._guard is None or self._guard.guarded is None:
            return
        with suppress(*KERNEL):  # the shortage itself is raised
            self.facts = self._observer.look()
        if unguarded := {uplink.index for uplink in self.facts.uplinks} - self._guard.guarded:
            self.shut(unguarded)

    def _reverted(self, part: Enforced, wanted: Wanted) -> tuple[str, ...]:
        """Revert what differs in `part`, and return it. Raises KernelError.

        A barrier that was changed and cannot be put back may let anything pass: the links go down.
        """
        tries = LOOKS + 1
        while True:
            found: tuple[str, ...] = ()
            tries -= 1
            try:
                found = self._differences(part, wanted)
                if found:
                    part.revert(wanted)
            except BaseException as err:
                is_about_links = part.follows_links and isinstance(err, KernelError)
                if is_about_links and self._observer.has_other_links(self.facts):
                    return ()
                if tries and part.may_miss_a_link(err):
                    continue
                if found and part.is_barrier:
                    self.shut()
                raise
            return found

    def _differences(self, part: Enforced, wanted: Wanted) -> tuple[str, ...]:
        """Return what differs in `part`, unless links that have changed explain it.

        While a link is renamed and back, only the first of two comparisons finds a difference.
        """
        found = part.differences(wanted)
        if not found or not part.follows_links:
            return found
        return () if self._observer.has_other_links(self.facts) else part.differences(wanted)

    def _wanted(self) -> Wanted:
        """Return what has to be in force. It is made once: each sample makes another state."""
        state, facts, way_to, config = self._state, self.facts, self._way_to, self.config
        made = self._made
        same = made and made[0] is state and made[1] is way_to and made[2] is config
        if made and same and made[4].facts is facts:
            return made[4]  # nothing was replaced: it need not be compared
        basis = (basis_of(state), config, facts, way_to)
        if made and made[3] == basis:
            wanted = made[4]
        else:
            wanted = wanted_in(state, config, facts, way_to, self._vault)
        self._made = state, way_to, config, basis, wanted
        return wanted
