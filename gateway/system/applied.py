"""What the gateway applies to the kernel, in the syntax that an operator would type.

For LOG_LEVEL=debug: adapters call `show` after they have changed something, and `started` for each
child. What is only read is not shown. A line is rendered only when there is someone to show it to,
so it costs nothing at other levels.

No line has a key, because adapters put none in, and none has a secret mark: a number with the bit
`marks.SHOWN` is replaced here by what everyone may see of it, whichever adapter wrote it.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from gateway.policy import marks

Sink = Callable[[str, str, str], None]
"""Takes an event, a command, and the command's standard input (empty for none)."""

HIDDEN = "(hidden)"
"""Where a command would have a key."""

_sinks: list[Sink] = []

_VISIBLE = f"{marks.SHOWN:#x}"
_NUMBER = re.compile(
    r"(?P<set>\b(?P<of>meta|ct) mark set )?(?P<match>\b(?:meta|ct) mark )?"
    r"(?<![\w.:])(?P<number>0x[0-9a-fA-F]{8}|[0-9]{10})(?P<mask>/0x[0-9a-fA-F]+)?(?![\w.:])"
)


def show_to(sink: Sink | None) -> None:
    """Pass what is applied from now on to `sink`, or to none."""
    _sinks[:] = [sink] if sink else []


def show(render: Callable[[], Iterable[str]], *, stdin: str = "") -> None:
    """Show the commands that `render` returns as applied, with `stdin` as their standard input."""
    _pass_on("applied", render, stdin)


def started(argv: Sequence[str]) -> None:
    """Show that a child process with these arguments was started."""
    _pass_on("child started", lambda: [shlex.join(argv)], "")


def _pass_on(event: str, render: Callable[[], Iterable[str]], stdin: str) -> None:
    """Pass `event` to the sink, with an error in place of a command that cannot be shown.

    Never raises. The kernel has the change already, and LOG_LEVEL=debug must not decide whether the
    steps that follow are done.
    """
    for sink in _sinks:
        try:
            for command in render():
                sink(event, without_secret_marks(command), without_secret_marks(stdin))
        except Exception as err:  # noqa: BLE001 - see above
            with suppress(Exception):
                sink(event, f"(cannot be shown: {type(err).__name__})", "")


def without_secret_marks(text: str) -> str:
    """Return `text` with the visible bit and the mask in place of each secret mark.

    In the syntax of the tool that `text` is for, so that it can still be loaded.
    """
    return _NUMBER.sub(_visible, text)


def _visible(found: re.Match[str]) -> str:
    mark = int(found["number"], 0)
    if mark > marks.WHOLE or marks.shown(mark) == mark or mark == marks.WHOLE:
        return found[0]
    if found["set"]:
        return f"{found['set']}{found['of']} mark | {_VISIBLE}"
    if found["match"]:
        return f"{found['match']}& {_VISIBLE} == {_VISIBLE}"
    return f"{_VISIBLE}/{_VISIBLE}"
