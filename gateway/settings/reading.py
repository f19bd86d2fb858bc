"""Reads the configuration in a child process, which hands over the frozen `Config` and ends.

pydantic and the parsers take as long to import as everything else together, and as much memory as
the gateway at rest. The child imports them while the gateway imports the rest, and its memory is
free again when it ends. It is a fork of the gateway, so it learns nothing that the gateway may not.
"""

import errno
import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, Notice, Problem, ProcessError, StoppedError, is_shortage

if TYPE_CHECKING:
    from gateway.model import Config

WHAT = "reading the configuration"
LOOK_AGAIN = 0.1
"""Seconds between two looks at whether a stop was asked for: a file can take any time to read."""
SHORT_OF_MEMORY, BROKEN = 3, 1
"""The exit codes of a child that could not even hand over why."""
_PART = 1 << 16


@dataclass(frozen=True)
class Read:
    """The configuration, and the notices about it."""

    config: "Config"
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class _Wrong:
    """What a ConfigError has."""

    problems: tuple[Problem, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class _Failed:
    """Any other error: `errno` is set for a shortage."""

    what: str
    errno: int | None


class Reading:
    """One reading of the configuration, which begins at once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._child: tuple[int, int] | None = None
        try:
            self._start()
        except (OSError, MemoryError):  # `result` tries again, and raises it
            return

    def result(self, is_stopped: Callable[[], bool]) -> Read:
        """Wait for the configuration and return it; a call after a shortage reads again.

        Raises ConfigError, ProcessError (its `errno` says whether a shortage was the reason), and
        StoppedError once `is_stopped` returns True.
        """
        pid, end = self._child or self._start()
        try:
            data = _all_of(end, is_stopped)
        except BaseException:
            # It may wait for a file for ever, and outlive the gateway. Process 1 reaps it.
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            self._child = None
            os.close(end)
        _pid, status = os.waitpid(pid, 0)
        return result_of(os.waitstatus_to_exitcode(status), data)

    def _start(self) -> tuple[int, int]:
        """Start the child; return its process id, and the pipe that has its outcome."""
        end, child_end = os.pipe()
        try:
            pid = os.fork()
        except BaseException:
            os.close(end)
            os.close(child_end)
            raise
        if not pid:
            _be_the_child(child_end, self._environ)
        os.close(child_end)
        self._child = pid, end
        return self._child


def result_of(code: int, data: bytes) -> Read:
    """Return the configuration from a child that ended with `code` and handed over `data`.

    Raises ConfigError, and ProcessError as `Reading.result` does.
    """
    if code:
        # The kernel kills when memory is short; what was written until then is in pieces.
        number = errno.ENOMEM if code in {-signal.SIGKILL, SHORT_OF_MEMORY} else None
        raise ProcessError(WHAT, f"the child ended with {code}", errno=number)
    outcome: object = pickle.loads(data)  # noqa: S301 - our own child's
    match outcome:
        case Read():
            return outcome
        case _Wrong():
            raise ConfigError(outcome.problems, outcome.notices)
        case _Failed():
            raise ProcessError(WHAT, outcome.what, errno=outcome.errno)
        case _:
            raise ProcessError(WHAT, "the child handed nothing over")


def _be_the_child(end: int, environ: Mapping[str, str]) -> None:
    """Read the configuration, write the outcome to `end`, and end the process."""
    code = BROKEN
    try:
        data = handed_over(environ)
        with open(end, "wb") as pipe:
            pipe.write(data)
        code = 0
    except MemoryError:
        code = SHORT_OF_MEMORY
    finally:  # also of what cannot be caught: nothing of the parent's may run twice
        os._exit(code)


def handed_over(environ: Mapping[str, str]) -> bytes:
    """Return what reading the configuration comes to, for `result_of` in another process."""
    return pickle.dumps(_outcome(environ))


def _outcome(environ: Mapping[str, str]) -> Read | _Wrong | _Failed:
    try:
        from gateway.settings.assemble import load  # noqa: PLC0415 - heavy, and only here

        loaded = load(environ)
    except ConfigError as err:
        return _Wrong(err.problems, err.notices)
    except Exception as err:  # noqa: BLE001 - it is reported by the parent
        if is_shortage(err):
            return _Failed(str(err), getattr(err, "errno", None) or errno.ENOMEM)
        # The message of an error that is not ours may contain a key, so only its type is shown.
        place = traceback.extract_tb(err.__traceback__)[-1]
        name = type(err).__name__
        return _Failed(f"unexpected {name} in {place.filename}, line {place.lineno}", None)
    return Read(loaded.config, loaded.notices)


def _all_of(end: int, is_stopped: Callable[[], bool]) -> bytes:
    """Return everything that comes from `end` until it is closed."""
    data = bytearray()
    waiting = select.poll()  # and not select(2), which takes no descriptor above 1023
    waiting.register(end, select.POLLIN)
    while True:
        while not waiting.poll(LOOK_AGAIN * 1000):
            if is_stopped():
                raise StoppedError(f"asked to stop while {WHAT}")
        part = os.read(end, _PART)
        if not part:
            return bytes(data)
        data += part
