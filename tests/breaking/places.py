"""Runs a package and keeps telling, in a file, which of its lines is being executed.

    python places.py FILE PACKAGE

FILE holds the innermost calls in the package as `file:line < file:line < ...`, up to a line end. It
is for whoever stops the process in a kernel call and wants to know where that call comes from.
A program of its own, standard library only.
"""

import mmap
import runpy
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

SIZE = 256
"""Octets of FILE."""
DEPTH = 3
"""Calls that are told."""
EVENTS = {"call", "c_call"}


def main() -> None:
    """Map the file, and run the module under a profile function."""
    _, path, module = sys.argv
    project = Path(__file__).resolve().parents[2]
    package = f"{project / module}/"
    with Path(path).open("r+b") as file:
        told = mmap.mmap(file.fileno(), SIZE)

    ours: dict[CodeType, bool] = {}

    def is_ours(frame: FrameType) -> bool:
        code = frame.f_code
        if code not in ours:
            ours[code] = code.co_filename.startswith(package)
        return ours[code]

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
        told[:SIZE] = " < ".join(calls).encode()[: SIZE - 1].ljust(SIZE, b"\n")

    sys.argv = [module]
    sys.path[0] = str(project)
    threading.setprofile(note)
    sys.setprofile(note)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
