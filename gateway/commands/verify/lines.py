"""What `gateway verify` says: line by line what was tried, what happened, whether that is right."""

from dataclasses import dataclass

from gateway.commands.verify.attempts import ANSWERED, SENT, SILENT


@dataclass(frozen=True)
class Line:
    """What was tried, what happened, and whether that is as promised."""

    tried: str
    happened: str
    ok: bool


def judged(name: str, result: str, *, leaks: int, is_shown: bool = True) -> Line:
    """Return the line for a trial: its `result` in a word, and how many `leaks` a witness saw.

    Where no witness could have seen anything (`is_shown` False), only a refusal will do.
    """
    taken = result in {SENT, SILENT}
    if leaks or result == ANSWERED:
        return Line(name, f"{result}, and it LEFT", ok=False)
    if taken and not is_shown:
        return Line(name, f"{result}, and nothing says that it was REFUSED", ok=False)
    happened = f"{result}, and nothing left in clear" if taken else f"refused ({result})"
    return Line(name, happened, ok=True)
