"""What the gateway and its process for ports write to each other, as words and lines.

A line of the process comes from one that a server may have taken over: it is read strictly.
"""

import re
from collections.abc import Sequence

from gateway.model.forwarding import MOST_PORTS
from gateway.model.frozen import frozen
from gateway.policy.mapped import Granted, Plan, PortProblem, Wish
from gateway.policy.portmap import Version

HEARTBEAT = 20.0
"""Seconds after which the process writes a line at the latest, whether or not it has changed."""
LAST_PORT = 65535
_PORT = r"\d:\d{1,5}:\d{1,5}:\d{1,5}(?:\.\d)?"
_LINE = re.compile(rf"ports(?P<ports>(?: {_PORT}){{0,{MOST_PORTS}}}) problem (?P<problem>[a-z_-]+)")
_NO_PROBLEM = "-"


@frozen
class Line:
    """What a line says: the ports until their times, and why there are not more."""

    ports: tuple[Granted, ...]
    problem: PortProblem | None


def line_of(ports: Sequence[Granted], problem: PortProblem | None, now: float) -> str:
    """Return the line that says so at `now`."""
    words = [f" {it.index}:{it.public}:{it.arriving}:{it.until - now:.1f}" for it in ports]
    return f"ports{''.join(words)} problem {problem or _NO_PROBLEM}"


def read(line: str, plan: Plan, now: float) -> Line | None:
    """Return what a line says that arrives at `now`, None if it cannot be from a sound process.

    No port lasts longer than it was asked for.
    """
    if not (match := _LINE.fullmatch(line)):
        return None
    problem = match["problem"]
    if problem != _NO_PROBLEM and problem not in set(PortProblem):
        return None
    found = []
    for word in match["ports"].split():
        index, public, arriving, seconds = word.split(":")
        numbers = int(public), int(arriving)
        if int(index) >= len(plan.wishes) or not all(1 <= it <= LAST_PORT for it in numbers):
            return None
        until = now + min(float(seconds), plan.lifetime)
        found.append(Granted(int(index), *numbers, until))
    if len({it.index for it in found}) < len(found) or len({it.public for it in found}) < len(
        found
    ):
        return None
    return Line(tuple(found), None if problem == _NO_PROBLEM else PortProblem(problem))


def words_of(plan: Plan) -> tuple[str, str]:
    """Return the arguments from which the process makes `plan`."""
    wishes = ",".join(f"{_text(it.private)}:{it.public}:{it.at_public:d}" for it in plan.wishes)
    return f"{plan.version.name}:{plan.lifetime}", wishes


def plan_of(words: Sequence[str]) -> Plan:
    """Return the plan of such arguments."""
    head, wishes = words
    name, lifetime = head.split(":")
    return Plan(Version[name], int(lifetime), tuple(map(_wish, wishes.split(","))))


def _text(private: int | None) -> str:
    return "any" if private is None else str(private)


def _wish(text: str) -> Wish:
    private, public, at_public = text.split(":")
    return Wish(None if private == "any" else int(private), int(public), at_public == "1")
