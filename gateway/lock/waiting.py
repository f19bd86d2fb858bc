"""What `gateway hold` becomes once the namespace is closed: a process that only waits.

A program of its own, run as `python -I -S waiting.py`, with nothing imported but what the
interpreter has built in: a third of the memory of a process that has closed a namespace. As
process 1 it has no zombies: the kernel reaps the children of a process that ignores SIGCHLD
(sigaction(2)).
"""

import _signal  # type: ignore[import-not-found]
import posix

STOP = {_signal.SIGTERM, _signal.SIGINT}


def main() -> None:
    """Wait until a signal asks to stop; one that came while the namespace was closed counts."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, STOP)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    try:
        while posix.waitpid(-1, posix.WNOHANG)[0]:  # those that ended before
            pass
    except ChildProcessError:
        pass
    _signal.sigwait(STOP)


if __name__ == "__main__":
    main()
