"""What the kernel has to hold for a state, put there and kept there: rules, guard, routes.

Always the rules first. When the rules of a state are refused, the closed ones are tried in their
place; when the kernel refuses those too, the links go down, and come up again once the closed rules
are in force. A shortage (`gateway.errors.is_shortage`) is not a refusal: the rules that were read
back last stay in force. Nothing here accepts, restores or flushes on the way out of an error.
"""

import errno
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress

import structlog

from gateway.daemon.ports import EgressGuard, LinksAndRoutes
from gateway.errors import FirewallError, KernelError, NetworkError, is_shortage
from gateway.firewall import Firewall
from gateway.model import Config, Facts, Tunnel
from gateway.policy.firewall import closed, essence, ruleset_for
from gateway.policy.guard import guard_for
from gateway.policy.limits import DROP_NET_RAW
from gateway.policy.routing import (
    LOCKED,
    Routing,
    routing_for,
    routing_for_question,
    without_interface,
)
from gateway.policy.rules import Ruleset
from gateway.policy.states import Connected, Connecting, Locked, Resolving, State, Stopping
from gateway.policy.tally import Tally
from gateway.policy.ways import steady

LOOKS = 5
"""How often the namespace is looked at anew, because it changed while it was brought into step."""

_GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.ENETDOWN}
"""What the kernel answers about a link, an address or a route that is not there (any more)."""

_UNPLUG = "stop the workloads, or take the container off its networks: `docker network disconnect`"
_ROUTES_IGNORED = "the main table has more routes than the gateway reads; the others are ignored"
_FEWER_ROUTES = "stop the router that advertises them, or set net.ipv6.conf.eth0.accept_ra to 0"


class Enforcement:
    """Keeps the kernel in step with a state and with what the namespace looks like."""

    def __init__(
        self,
        config: Config,
        firewall: Firewall,
        guard: EgressGuard | None,
        network: LinksAndRoutes,
        reserve: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take over a namespace that is closed and has the locked routing.

        `reserve` lends descriptors to what has to be put into force when there are none left.
        """
        self._config = config
        self._firewall = firewall
        self._guard = guard
        self._network = network
        self._log = structlog.get_logger()
        self._reserve = reserve
        self.are_links_down = False
        self._are_some_down = False
        self._state: State = Locked()
        self._rules = closed()
        self._made: tuple[object, Ruleset] | None = None
        self._is_whole = True
        self._routing = LOCKED
        self._refused = Tally()
        self._refused_by_guard = Tally()
        # The links with a guard; None while it is the one that closed the namespace.
        self._guarded: set[int] | None = None
        self._prepared: frozenset[int] = frozenset()
        self._in_step = True
        self.facts = Facts()
        self.drift = 0
        self.drifted: tuple[str, ...] = ()
        self.kept_down: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[tuple[str, str, int], ...]:
        """The packets refused so far, by family and direction, as they were last counted."""
        total = {**self._refused.total, **self._refused_by_guard.total}
        return tuple((*where, packets) for where, packets in sorted(total.items()))

    def enter(self, state: State) -> None:
        """Put what `state` needs into force: rules, then routes. Raises KernelError."""
        self._state = state
        if self.are_links_down:
            self.close()
        self._bring_into_step(changed=False)

    def close(self) -> None:
        """Put the closed ruleset into force, whatever the state.

        Raises what went wrong, foreign errors too. After a shortage the former rules stay in force;
        after anything else the links are down, and the log names those that are still up. The next
        call that succeeds sets them up again.
        """
        self._is_whole = False
        try:
            self._apply(closed())
            if self._guard:
                self._close_guard(self._guard)
        except BaseException as err:
            if not is_shortage(err):
                self.shut()
            raise
        # From here on, what is compared and put back is the closed ruleset.
        self._rules = closed()
        self._is_whole = True
        self._reopen()

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...] | None:
        """Set the links down, or `only` those with these indexes.

        Log and return those that are still up, because nothing else can be done; None when that is
        not known.
        """
        if only is None:
            self.are_links_down = True
        else:
            self._are_some_down = True
        with suppress(OSError):  # of the log, whose reader may be gone
            try:
                still_up = self._network.shut(only)
            except (NetworkError, OSError) as err:
                self._log.error("the links are as they were", problem=str(err), remedy=_UNPLUG)
                return None
            if still_up:
                self._log.error("links are still up", links=still_up, remedy=_UNPLUG)
            return still_up
        return None

    def _reopen(self) -> None:
        """Set the links up again that were set down while nothing could be closed."""
        if self.are_links_down or self._are_some_down:
            problems = self._network.reopen()
            self.are_links_down = self._are_some_down = False
            self._log.warning("links are up again; closed by rules", not_restored=problems)

    def _close_guard(self, guard: EgressGuard) -> None:
        """Let nothing leave by any uplink.

        One that went away unnoticed is no reason to give up, though the kernel then refuses the
        guard of all (before Linux 6.16): those that are there now count, at last those that were
        there each time, and everything is put into step when the namespace is looked at next.
        """
        facts = self._found() if self.facts == Facts() else self.facts
        looks = [facts]
        while True:
            try:
                self._apply_guard(guard, closed(), facts)
            except FirewallError as err:
                if is_shortage(err):
                    raise
                self.facts = Facts()
                looks.append(self._found())
                if len(looks) > LOOKS + 1:
                    raise
                facts = looks[-1] if len(looks) <= LOOKS else steady(looks)
            else:
                return

    def route(self, routing: Routing) -> None:
        """Make the kernel's tables and policy rules hold `routing`; raises NetworkError."""
        self._with_reserve(lambda: self._network.apply_routing(routing))
        self._routing = routing

    def route_to_server(self, tunnel: Tunnel) -> None:
        """Make the way to the server of `tunnel`, before its interface. Raises KernelError."""
        looks = 1
        while True:
            facts = self.facts
            try:
                self.route(without_interface(routing_for(tunnel, self._config, facts)))
            except NetworkError:
                self.look_around()
                looks += 1
                if looks > LOOKS or self.facts == facts:
                    raise
            else:
                return

    def look_around(self) -> None:
        """Find out what the namespace looks like, and bring everything into step with it."""
        facts = self._found()
        if facts == self.facts and self._in_step:
            return
        if self.facts.all_routes and not facts.all_routes:
            self._log.warning("too many routes", problem=_ROUTES_IGNORED, remedy=_FEWER_ROUTES)
        self.facts = facts
        self._log.debug("namespace changed", uplinks=[uplink.name for uplink in facts.uplinks])
        self._bring_into_step(changed=True)

    def _bring_into_step(self, *, changed: bool) -> None:
        """Put rules, guard, settings and routes of the state into force in the namespace as found.

        A link can go, come or be renamed meanwhile, and the kernel then refuses what is about it
        (ENODEV, ENOENT, ESRCH, ENETDOWN and others). So an error counts only if the namespace still
        looks as it did; else it is looked at again. A link that was renamed twice looks as it did
        too: an answer that something is not there counts only after all attempts. A link that
        never stays the same is left out at last: it is not an uplink then, which closes it. Raises
        KernelError.
        """
        looks = [self.facts]
        self._in_step = False
        while True:
            try:
                self._put_everything(changed=changed)
            except KernelError as err:
                if is_shortage(err):
                    self._shut_unguarded()
                    raise
                found = self._found()
                is_gone = isinstance(err, NetworkError) and err.errno in _GONE
                if (found == self.facts and not is_gone) or len(looks) > LOOKS:
                    raise
                self._log.debug("looking again", problem=str(err))
                looks.append(found)
                self.facts = found if len(looks) <= LOOKS else steady(looks)
                changed = True
            else:
                self._in_step = True
                if self._are_some_down and changed:
                    self._reopen()  # they have a guard now
                return

    def _shut_unguarded(self) -> None:
        """Set links down that came up and could not be given a guard; they wait for it."""
        if self._guarded is None:
            return
        if unguarded := {uplink.index for uplink in self.facts.uplinks} - self._guarded:
            self.shut(unguarded)

    def _put_everything(self, *, changed: bool) -> None:
        """Put what the state needs into force; `changed` says whether the namespace did."""
        self._put_rules(guard=changed)
        if changed:
            self._prepared &= {uplink.index for uplink in self.facts.uplinks}
        for uplink in self.facts.uplinks:
            if uplink.index not in self._prepared:
                self._network.prepare(uplink.name)
                self._prepared |= {uplink.index}
        routing = self._wanted_routing()
        if changed or routing != self._routing:
            self.route(routing)

    def _found(self) -> Facts:
        """Return what the namespace looks like, less the links that have to stay down."""
        for link in self._network.shut_unnameable():
            self._log.error("set a link down whose name no rule can carry", link=ascii(link))
        kept_down = self._network.shut_shared()
        if kept_down != self.kept_down:
            self.kept_down = kept_down
            if kept_down:
                self._log.error("links are kept down", links=kept_down, remedy=DROP_NET_RAW)
            else:
                self._log.info("links are no longer kept down")
        return self._network.facts()

    def put_back_drift(self) -> None:
        """Compare the kernel with what was put there, and put back what is not. Counts and logs.

        `drifted` says afterwards what was found. Refused packets are counted with it. What the
        namespace looks like is taken as it was last found. Where it has other links by now, what is
        about links is no drift: it is brought into step when the namespace is looked at next.
        """
        found = self._rules_drift()
        if found:
            try:
                self._apply(self._rules)
            except BaseException:
                # What is in force was read, and is not what was put there: it may pass anything.
                self.shut()
                raise
        drift = [
            *found,
            *(self._mended_guard(self._guard) if self._guard else ()),
            *self._mend(
                lambda: self._network.routing_drift(self._routing),
                lambda: self._network.apply_routing(self._routing),
            ),
        ]
        for uplink in self.facts.uplinks:
            drift += self._mended_settings(uplink.name)
        self.drift += len(drift)
        self.drifted = tuple(drift)
        if drift:
            self._log.warning("put back what somebody else changed", drift=drift)

    def _mended_guard(self, guard: EgressGuard) -> tuple[str, ...]:
        return self._mend(
            lambda: self._guard_drift(guard),
            lambda: self._apply_guard(guard, self._rules, self.facts),
        )

    def _mended_settings(self, uplink: str) -> tuple[str, ...]:
        return self._mend(
            lambda: self._network.device_drift(uplink), lambda: self._network.prepare(uplink)
        )

    def _mend(
        self, find: Callable[[], tuple[str, ...]], put: Callable[[], None]
    ) -> tuple[str, ...]:
        """Put back what `find` finds, and return it; nothing where the links have changed."""
        try:
            found = find()
            if not found or self._has_other_links():
                return ()
            put()
        except KernelError:
            if self._has_other_links():
                return ()
            raise
        return found

    def _has_other_links(self) -> bool:
        """Say whether the namespace has other uplinks by now, or they have other addresses."""
        return self._network.facts().uplinks != self.facts.uplinks

    def _put_rules(self, *, guard: bool = False) -> None:
        """Put the rules of the state into force, where they are not already."""
        rules = self._wanted_rules()
        changed = rules != self._rules or not self._is_whole
        if changed:
            with suppress(FirewallError):  # the rules are more than their counts
                self._refused.read(self._firewall.refused())
            # Until the guard is in force too, what is in force is neither this nor the former.
            self._is_whole = False
            self._apply(rules)
        if self._guard and (guard or changed):
            self._apply_guard(self._guard, rules, self.facts)
        self._rules = rules
        self._is_whole = True

    def _apply(self, rules: Ruleset) -> None:
        """Put `rules` into force, whose counts begin anew."""
        self._with_reserve(lambda: self._firewall.apply(rules))
        self._refused.begin_anew()

    def _apply_guard(self, guard: EgressGuard, rules: Ruleset, facts: Facts) -> None:
        """Put what goes with `rules` into force, whose counts begin anew.

        They are not read before: one more run of nft would keep a lock waiting.
        """
        self._with_reserve(lambda: guard.apply(guard_for(rules, facts)))
        self._guarded = {uplink.index for uplink in facts.uplinks}
        self._refused_by_guard.begin_anew()

    def _with_reserve(self, put: Callable[[], None]) -> None:
        """Put something into force, with the reserved descriptors where there are no others."""
        try:
            put()
        except (KernelError, OSError) as err:
            if err.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            with self._reserve():
                put()

    def _rules_drift(self) -> tuple[str, ...]:
        found = self._firewall.verify(self._rules)
        self._refused.read(self._firewall.refused())
        return found

    def _guard_drift(self, guard: EgressGuard) -> tuple[str, ...]:
        found = guard.verify(guard_for(self._rules, self.facts))
        self._refused_by_guard.read(guard.refused())
        return found

    def _wanted_rules(self) -> Ruleset:
        """Return the rules of the state, made once: a sample a second changes most states."""
        basis = (essence(self._state), self.facts)
        if self._made is None or self._made[0] != basis:
            self._made = (basis, ruleset_for(self._state, self._config, self.facts))
        return self._made[1]

    def _wanted_routing(self) -> Routing:
        match self._state:
            case Resolving() if self._state.query is not None:
                return routing_for_question(self._state.query.resolver)
            case Connecting() if self._state.built:
                return routing_for(self._state.tunnel, self._config, self.facts)
            case Connected():
                return routing_for(self._state.tunnel, self._config, self.facts)
            case Locked() | Resolving() | Connecting() | Stopping():
                return LOCKED
