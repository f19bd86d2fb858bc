"""Keeps others waiting for a file: takes a write lease on it, and never gives it back.

    python holder.py PATH

Says "refused" when it cannot get one, and keeps trying; says "held" when it has it, and then
ignores the signal with which the kernel asks for it (fcntl(2), "Leases"). It ends when
standard input closes. A program of its own, standard library only.
"""

import fcntl
import os
import signal
import sys
import threading
import time

PAUSE = 0.005
"""Seconds between two attempts."""


def attempt(path: str) -> bool:
    """Return whether the file could be leased; it stays open then."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        os.close(descriptor)
        return False
    return True


def say(word: str) -> None:
    """Write one line."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def hold() -> None:
    """Try until the lease is there."""
    if not attempt(sys.argv[1]):
        say("refused")
        while not attempt(sys.argv[1]):
            time.sleep(PAUSE)
    say("held")


def main() -> None:
    """Hold the lease until standard input closes."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    threading.Thread(target=hold, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
