"""The lines of `gateway verify`: what was tried, what happened, and whether that is right."""

from gateway.commands.verify.attempts import ANSWERED, SENT, SILENT
from gateway.model.frozen import frozen

BLIND = "the witness did not see ALL that left: run it again while less is sent"


@frozen
class Line:
    """What was tried, what happened, and whether that is as promised."""

    tried: str
    happened: str
    ok: bool


NOT_TRIED = {"EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR"}
"""No refusals, but a want of what the attempt takes (errno(3))."""


def judged(
    name: str, result: str, *, leaks: int, is_shown: bool = True, is_whole: bool = True
) -> Line:
    """Return the line for a trial: its `result` in one word, and how many `leaks` a witness saw.

    If no witness could have seen a packet (`is_shown` False), only a refusal is ok. So it is if the
    witness cannot have seen all that left (`is_whole` False).
    """
    taken = result in {SENT, SILENT}
    if leaks or result == ANSWERED:
        return Line(name, f"{result}, and it LEFT", ok=False)
    if taken and not is_shown:
        return Line(name, f"{result}, and nothing shows that it was REFUSED", ok=False)
    if taken and not is_whole:
        return Line(name, f"{result}, and {BLIND}", ok=False)
    if result in NOT_TRIED:
        return Line(name, f"could not be tried now ({result}): run it again", ok=False)
    happened = f"{result}, and nothing left unencrypted" if taken else f"refused ({result})"
    return Line(name, happened, ok=True)
