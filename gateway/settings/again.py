"""Reads the configuration once more for a gateway that runs, in a process of its own.

The gateway has threads by then, so it starts a fresh interpreter instead of a fork: a lock that a
thread holds at a fork stays locked in the child. The environment, which may hold keys, is handed
over in a file in memory that has no name, and so is the outcome: neither is in the arguments or in
the environment of the process.
"""

import os
import pickle
import resource
import sys
from collections.abc import Mapping

from gateway.settings.reading import BROKEN, SHORT_OF_MEMORY, handed_over

DESCRIPTOR = 3
"""Where the child has the file."""

LARGEST_OUTCOME = 4 << 20
MOST_MEMORY = 512 << 20
MOST_PROCESSOR_TIME = 60
"""What the child may write, have as address space (both in bytes), and use in seconds."""

_CODE = "import sys; sys.path[:] = sys.argv[1:]; from gateway.settings import again; again.main()"


def command() -> list[str]:
    """Return the command of the child, which imports from where this process does."""
    return [sys.executable, "-I", "-S", "-c", _CODE, *sys.path]


def file_with(environ: Mapping[str, str]) -> int:
    """Return the descriptor of a new file that hands `environ` over. Raises OSError."""
    descriptor = os.memfd_create("configuration", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            pickle.dump(dict(environ), file)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def contents_of(descriptor: int) -> bytes:
    """Return what the child has written into the file of `descriptor`. Raises OSError."""
    return os.pread(descriptor, LARGEST_OUTCOME, 0)


def main() -> None:
    """Be the child: read the environment, then the configuration, write the outcome, and end."""
    code = BROKEN
    try:
        for kind, most in (
            (resource.RLIMIT_FSIZE, LARGEST_OUTCOME),
            (resource.RLIMIT_AS, MOST_MEMORY),
            (resource.RLIMIT_CPU, MOST_PROCESSOR_TIME),
        ):
            _limit(kind, most)
        with open(DESCRIPTOR, "r+b") as file:
            file.seek(0)
            environ = pickle.load(file)  # noqa: S301 - our own parent's
            data = handed_over(environ)
            file.seek(0)
            file.truncate()
            file.write(data)
        code = 0
    except MemoryError:
        code = SHORT_OF_MEMORY
    finally:
        os._exit(code)


def _limit(kind: int, most: int) -> None:
    """Let this process have `most` of a resource, or less where it may already have only that."""
    _, hard = resource.getrlimit(kind)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (limit, limit))
