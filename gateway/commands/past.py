"""The history as lines for a person; see `gateway.commands.showing` for what they may trust."""

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise

from gateway.commands.asking import listed, mapping
from gateway.commands.showing import seconds, shown, size

NOTHING = "nothing yet: the gateway has just been started"
KEYS = ("received", "sent")
LARGEST = 1e18
"""A number above it is not one of the gateway's."""


def lines_of(answered: Mapping[str, object], now: float | None = None) -> list[str]:
    """Return the history as lines, the oldest first; `now` is in seconds since 1970."""
    transitions = [mapping(it) for it in listed(answered.get("transitions"))]
    samples = [mapping(it) for it in listed(answered.get("samples"))]
    rows = list(_changes(transitions, time.time() if now is None else now))
    if not rows:
        return [NOTHING]
    width = max(len(state) for _, state, _ in rows)
    found = [f"{when}  {state:{width}}  {text}" for when, state, text in rows]
    return [*found, *(["", _traffic(samples)] if len(samples) > 1 else [])]


def _changes(transitions: list[Mapping[str, object]], now: float) -> Iterator[tuple[str, str, str]]:
    """Yield when each condition began, its state, and the rest: why, and for how long it was red.

    The last time of red is that of all conditions between two green ones.
    """
    red_since: float | None = None
    for number, it in enumerate(transitions):
        at = _number(it.get("at"))
        text = shown(it.get("reason")).replace("_", " ")
        text += f": {shown(it['detail'])}" if it.get("detail") else ""
        if it.get("healthy") is not True:
            red_since = at if red_since is None else red_since
            is_last = number == len(transitions) - 1
            text += f"; red for {seconds(now - red_since)} so far" if is_last else ""
        elif red_since is not None:
            text += f"; it was red for {seconds(at - red_since)}"
            red_since = None
        yield _time_of_day(at), shown(it.get("state")), text


def _traffic(samples: list[Mapping[str, object]]) -> str:
    """Return what passed between the first and the last sample, as one line."""
    first, last = (_number(samples[index].get("at")) for index in (0, -1))
    received, sent = (_grown([int(_number(it.get(k))) for it in samples]) for k in KEYS)
    ages = [_number(it.get("handshake_age")) for it in samples]
    return (
        f"in {seconds(last - first)}: {size(received)} received, {size(sent)} sent; "
        f"the oldest handshake was {seconds(max(ages))} old"
    )


def _grown(counter: list[int]) -> int:
    """Return by how much a counter has grown that begins at zero with each interface."""
    return sum(late - early if late >= early else late for early, late in pairwise(counter))


def _number(value: object) -> float:
    """Return a number of the answer, 0 for anything else."""
    usable = isinstance(value, int | float) and -LARGEST < value < LARGEST
    return float(value) if usable else 0.0  # type: ignore[arg-type]  # it is a number


def _time_of_day(at: float) -> str:
    """Return a time as in the log, in UTC; as it came if it is none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
    except (OverflowError, ValueError, OSError):
        return str(at)
