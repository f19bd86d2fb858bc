"""Asks a server for ports and keeps them: what to send when, and which ports there are.

Pure: time comes in as an argument, in seconds. A port counts while the server has given the same
public one for UDP and TCP, until its lifetime is over by our clock, whatever is sent meanwhile. One
lost packet changes nothing: a port is asked for again long before its end, and until an answer
comes.
"""

from collections.abc import Callable, Iterator, Sequence

from gateway.policy.mapped import NEVER, Granted, Leg, Plan, PortProblem, Slot, Wish
from gateway.policy.portmap import Answer, Codec, Request, Result, Version

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 16.0
"""Seconds until a request is sent again, each time twice as long (RFC 6886, section 3.1).

Not more than the second: with 37 requests in the 9 minutes that are left of a port when it is asked
for again, it lasts where 40 % of the packets are lost each way.
"""
RENEWED_AFTER = 60.0
"""Seconds until a port is asked for again; sooner where it is given for less than 80 s."""
RENEWED_PART = 0.75
"""The part of a lifetime after which it is at the latest."""
SHORTEST_LIFETIME = 10
"""Seconds; a port that is given for less would open and close all the time, and is not taken."""
REFUSED_FOR, LONGEST_REFUSED = 10.0, 300.0
"""Seconds until the next request after one that was refused, each time twice as long."""
SILENT_AFTER = 5
"""Requests without an answer after which the server counts as silent: 7.75 s."""
EPOCH_SLACK = 2.0
"""Seconds by which a server's epoch may be behind (RFC 6886, section 3.6)."""
BETWEEN_RESETS = 5.0
"""Seconds for which a second fall of the epoch changes nothing."""

_PROBLEM_OF = {
    Result.UNSUPPORTED_VERSION: PortProblem.UNSUPPORTED_VERSION,
    Result.NOT_AUTHORIZED: PortProblem.NOT_AUTHORIZED,
    Result.NETWORK_FAILURE: PortProblem.NETWORK_FAILURE,
    Result.NO_RESOURCES: PortProblem.NO_RESOURCES,
    Result.UNSUPPORTED: PortProblem.UNSUPPORTED,
}


class Mapper:
    """The ports of one connection with a server; `choose` returns a port of the dynamic ones."""

    def __init__(self, plan: Plan, codec: Codec, now: float, choose: Callable[[], int]) -> None:
        self._plan = plan
        self._codec = codec
        self._choose = choose
        self._version = plan.version
        self._unsupported: set[Version] = set()
        self._versions_failed = 0
        self._epoch: tuple[int, float] | None = None
        self._reset_at = -NEVER
        self._farewells: list[bytes] = []
        self._slots = [
            Slot(index, it, self._private_of(it)) for index, it in enumerate(plan.wishes)
        ]
        for slot in self._slots:
            slot.udp.ask(now, slot.first_wish)

    @property
    def due_at(self) -> float:
        """When something is to be sent next."""
        if self._farewells:
            return 0.0
        return min(leg.due_at for leg in self._legs())

    def to_send(self, now: float) -> list[bytes]:
        """Return what is to be sent at `now`; it counts as sent."""
        messages, self._farewells = self._farewells, []
        for slot in self._slots:
            for leg in slot.legs:
                if leg.due_at <= now:
                    leg.due_at = now + min(FIRST_PAUSE * 2.0 ** min(leg.tries, 20), LONGEST_PAUSE)
                    leg.tries += 1
                    if leg.tries > SILENT_AFTER and leg.problem is None:
                        leg.problem = PortProblem.SILENT
                    messages.append(self._request(slot, leg, self._plan.lifetime))
        return messages

    def receive(self, message: bytes, now: float) -> None:
        """Take a message of the server; what is not an answer to a request changes nothing."""
        answer = self._codec.read(self._version, message)
        if answer is None or not any(leg.waits for leg in self._legs()):
            return
        if answer.protocol is None:
            self._change_version(now)
            return
        found = self._asked(answer)
        if found is None:
            return
        slot, leg = found
        self._heed_epoch(answer.epoch, leg, now)
        if answer.result is not Result.SUCCESS:
            self._refused(leg, _PROBLEM_OF.get(answer.result, PortProblem.REFUSED), answer, now)
        elif answer.lifetime < SHORTEST_LIFETIME or not answer.public:
            if answer.lifetime:  # else it may be the answer to a farewell
                leg.problem = PortProblem.TOO_SHORT
        else:
            self._given(slot, leg, answer, now)

    def failed(self, problem: PortProblem) -> None:
        """Note that requests do not reach the server; they are sent again as if they had."""
        for leg in self._legs():
            if leg.waits:
                leg.problem = problem

    def leases(self, now: float) -> tuple[Granted, ...]:
        """Return the ports that there are, in the order of the wishes, each once."""
        found: dict[int, Granted] = {}
        for slot in self._slots:
            if slot.held and slot.held.until > now:
                found.setdefault(slot.held.public, slot.held)
        return tuple(found.values())

    def problem(self, now: float) -> PortProblem | None:
        """Return why there are fewer ports than wanted, None where that is not so or not known."""
        leases = self.leases(now)
        if len(leases) == len(self._slots):
            return None
        for slot in self._slots:
            if slot.held is None or slot.held.until <= now:
                if problem := next((leg.problem for leg in slot.legs if leg.problem), None):
                    return problem
                if slot.differed:
                    return PortProblem.PORTS_DIFFER
        is_waiting = any(slot.held is None or slot.held.until <= now for slot in self._slots)
        return None if is_waiting else PortProblem.FEWER

    def farewell(self, now: float) -> list[bytes]:
        """Return what gives every port back."""
        return [it for slot in self._slots for it in self._deletions(slot, now)]

    def _legs(self) -> Iterator[Leg]:
        for slot in self._slots:
            yield from slot.legs

    def _private_of(self, wish: Wish) -> int:
        return self._choose() if wish.private is None else wish.private

    def _request(self, slot: Slot, leg: Leg, lifetime: int) -> bytes:
        request = Request(leg.protocol, slot.private, leg.wanted, lifetime)
        return self._codec.write(self._version, request)

    def _deletions(self, slot: Slot, now: float) -> Sequence[bytes]:
        return [self._request(slot, leg, 0) for leg in slot.legs if leg.expires_at > now]

    def _asked(self, answer: Answer) -> tuple[Slot, Leg] | None:
        """Return the mapping that `answer` is about, if it was asked for."""
        waiting = [
            (slot, leg)
            for slot in self._slots
            for leg in slot.legs
            if leg.waits and leg.protocol is answer.protocol
        ]
        exact = [it for it in waiting if it[0].private == answer.private]
        if exact:
            return exact[0]
        # Port 0 means any, and a refusal need not repeat what was asked for.
        loose = [it for it in waiting if not it[0].private or answer.result is not Result.SUCCESS]
        return loose[0] if loose else None

    def _given(self, slot: Slot, leg: Leg, answer: Answer, now: float) -> None:
        lifetime = min(answer.lifetime, self._plan.lifetime)
        leg.public, leg.expires_at = answer.public, now + lifetime
        leg.tries, leg.failures, leg.problem = 0, 0, None
        leg.due_at = now + min(RENEWED_AFTER, lifetime * RENEWED_PART)
        leg.wanted = answer.public
        self._versions_failed = 0
        self._settle(slot, leg, now)

    def _settle(self, slot: Slot, given: Leg, now: float) -> None:
        """Compare both mappings of a port, now that one was `given`."""
        other = slot.tcp if given is slot.udp else slot.udp
        if given.public == other.public and other.expires_at > now:
            arriving = given.public if slot.wish.at_public else slot.private
            until = min(given.expires_at, other.expires_at)
            slot.held = Granted(slot.index, given.public, arriving, until)
            slot.differed, slot.has_retried = 0, False
        elif other.waits:
            if other.wanted != given.public:  # its answer can only be another port
                other.ask(now, given.public)
        elif other.problem is not None:
            other.wanted = given.public
        elif other.expires_at <= now:
            other.ask(now, given.public)
        elif not slot.has_retried:
            slot.has_retried = True
            other.ask(now, given.public)
        else:
            self._differ(slot, now)

    def _differ(self, slot: Slot, now: float) -> None:
        """Give back a port that is another one for UDP than for TCP, and ask for another."""
        self._farewells += self._deletions(slot, now)
        slot.differed += 1
        slot.held, slot.has_retried = None, False
        slot.private = self._private_of(slot.wish)
        for leg in slot.legs:
            leg.public, leg.expires_at, leg.tries, leg.due_at = 0, 0.0, 0, NEVER
        pause = min(2.0 ** min(slot.differed, 20), LONGEST_REFUSED)
        slot.udp.ask(now + pause, slot.first_wish)

    def _refused(self, leg: Leg, problem: PortProblem, answer: Answer, now: float) -> None:
        pause = min(REFUSED_FOR * 2.0 ** min(leg.failures, 20), LONGEST_REFUSED)
        leg.due_at = now + max(pause, min(answer.lifetime, LONGEST_REFUSED))
        leg.tries, leg.problem = 0, problem
        leg.failures += 1

    def _change_version(self, now: float) -> None:
        """Ask with the other version, or with the first one again after a while."""
        self._unsupported.add(self._version)
        pause, problem = 0.0, None
        if self._version.other in self._unsupported:
            pause = min(REFUSED_FOR * 2.0 ** min(self._versions_failed, 20), LONGEST_REFUSED)
            problem = PortProblem.UNSUPPORTED_VERSION
            self._unsupported.clear()
            self._versions_failed += 1
            self._version = self._plan.version
        else:
            self._version = self._version.other
        self._epoch = None
        for slot in self._slots:
            for leg in slot.legs:
                leg.tries, leg.due_at, leg.problem = 0, NEVER, problem
                leg.public, leg.expires_at = 0, 0.0
            slot.udp.ask(now + pause, slot.udp.wanted)

    def _heed_epoch(self, epoch: int, answered: Leg, now: float) -> None:
        """Ask for everything else again where the server has lost what it had given.

        RFC 6886, section 3.6.
        """
        former, self._epoch = self._epoch, (epoch, now)
        if former is None or epoch >= former[0] + (now - former[1]) * 7 / 8 - EPOCH_SLACK:
            return
        if now < self._reset_at + BETWEEN_RESETS:
            return
        self._reset_at = now
        for leg in self._legs():
            if leg is not answered and leg.expires_at > now and not leg.waits:
                leg.ask(now, leg.public)
