"""Runs a package and keeps writing to a file which of its lines is being executed.

    python places.py FILE PACKAGE [ARGUMENTS]

FILE holds the innermost calls in the package as `file:line < file:line < ...`, up to a line end. It
is for a program that stops the process in a kernel call and needs to know who made that call.
From octet SIZE on, up to a line end, it has the number of the lines that follow from octet LOG on:
`loaded file` at a module's first line, `ran file` at the first call of a function in it.
A program of its own, standard library only.
"""

import mmap
import os
import runpy
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

SIZE = 256
"""Octets of FILE for the calls."""
LOG = SIZE + 16
WHOLE = 1 << 16
"""Octets of FILE."""
OPTIMIZED = 1
"""The flag of a function's code (inspect.CO_OPTIMIZED), which that of modules and classes lacks."""
DEPTH = 3
"""Calls that are written."""
EVENTS = {"call", "c_call"}


class Log:
    """Which of the package's modules have been loaded, and of which a function has run."""

    def __init__(self, reported: mmap.mmap, module: str, package: str) -> None:
        """Log into `reported`: a kernel call of our own would be one more step."""
        self._reported = reported
        self._module, self._package = module, package
        self._ours: dict[CodeType, bool] = {}
        self._lines: set[str] = set()
        self._end = LOG
        self._lock = threading.Lock()

    def is_ours(self, frame: FrameType) -> bool:
        """Return whether a frame is the package's; log its module where that is news."""
        code = frame.f_code
        if code not in self._ours:
            self._ours[code] = code.co_filename.startswith(self._package)
            if self._ours[code]:
                self._log(code)
        return self._ours[code]

    def _log(self, code: CodeType) -> None:
        word = "ran" if code.co_flags & OPTIMIZED else "loaded"
        line = f"{word} {self._module}/{code.co_filename[len(self._package) :]}\n"
        with self._lock:  # the gateway imports in a thread too
            if line not in self._lines:
                self._lines.add(line)
                start, self._end = self._end, self._end + len(line)
                self._reported[start : self._end] = line.encode()
                self._reported[SIZE:LOG] = str(len(self._lines)).encode().ljust(LOG - SIZE, b"\n")


def main() -> None:
    """Map the file, and run the module under a profile function."""
    _, path, module, *arguments = sys.argv
    project = Path(__file__).resolve().parents[2]
    package = f"{project / module}/"
    with Path(path).open("r+b") as file:
        reported = mmap.mmap(file.fileno(), WHOLE)
    is_ours = Log(reported, module, package).is_ours

    def note(frame: FrameType, event: str, _: Any) -> None:
        # Only where the package calls something: as long as others call each other, it waits there.
        if event not in EVENTS:
            return
        inner: FrameType | None = frame
        if not is_ours(frame):
            inner = frame.f_back
            if event != "call" or inner is None or not is_ours(inner):
                return
        calls: list[str] = []
        while inner is not None and len(calls) < DEPTH:
            if is_ours(inner):
                calls.append(f"{inner.f_code.co_filename[len(package) :]}:{inner.f_lineno}")
            inner = inner.f_back
        reported[:SIZE] = " < ".join(calls).encode()[: SIZE - 1].ljust(SIZE, b"\n")

    # The child that reads the configuration shares the memory. What only it runs counts as never
    # run, on which every break depends.
    os.register_at_fork(after_in_child=lambda: sys.setprofile(None))
    sys.argv = [module, *arguments]
    sys.path[0] = str(project)
    threading.setprofile(note)
    sys.setprofile(note)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
