"""The lock that programs which change the legacy tables agree on."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOCK_FILE = "/run/xtables.lock"
"""What the programs of iptables lock while they change tables, iptables(8)."""

WAIT_SECONDS = 0.5


@contextmanager
def xtables_lock() -> Iterator[None]:
    """Keep the programs of iptables from changing a table between our reading and writing it.

    Without the lock (a read-only file system, or somebody who does not let go) we go on: what we
    write is whole, and what is read back afterwards is what counts.
    """
    try:
        lock = os.open(LOCK_FILE, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _locked(lock) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
