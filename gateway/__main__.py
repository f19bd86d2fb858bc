"""PID 1: close the namespace, then hand over to the command line."""

import sys

from gateway.lock import lockdown

HARMLESS = frozenset({"check", "status", "verify", "help", "-h", "--help", "--version"})
"""The commands that do not lock. All others do, misspelt ones too: a wrong command line is a wrong
configuration, and leaves the namespace closed."""


def main() -> int:
    """Run the command that the arguments name, `run` without any; return the exit code.

    Nothing that goes wrong here opens anything: the rules stay as they are.
    """
    argv = sys.argv[1:]
    harmless = not HARMLESS.isdisjoint(argv[:1]) or not {"-h", "--help"}.isdisjoint(argv)
    try:
        if not harmless:
            lockdown.lock()
            _keep_memory_to_itself()
            _keep_signals_waiting()
        import gc  # noqa: PLC0415 - after the lock

        # Hundreds of modules are built here, and nothing of them is garbage: looking for it costs a
        # fifth of the start.
        gc.disable()
        from gateway import cli  # noqa: PLC0415 - imports everything, so after the lock

        gc.freeze()
        gc.enable()
        return cli.main(argv)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the end of the program: told, and an exit code
        from gateway.lock.last_resort import tell  # noqa: PLC0415 - slow, and seldom needed

        tell(error)
        return 1


def _keep_memory_to_itself() -> None:
    """Let no crash of this process or its children write a core dump, in which the keys would be.

    A limit of 1 and not 0: where core dumps go to a program, which may be the host's, the kernel
    takes no notice of 0 and refuses 1 (fs/coredump.c). A limit that is 0 already cannot be raised.
    """
    import resource  # noqa: PLC0415 - slow, so after the lock

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except ValueError:
        return


def _keep_signals_waiting() -> None:
    """Let the signals that stop the gateway wait until its loop can answer them (app.serve).

    Process 1 would lose them: without a handler they have no effect on it, unless they are blocked
    (signal(7)). Anybody else would end in the middle of something.
    """
    import signal  # noqa: PLC0415 - slow, so after the lock

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    raise SystemExit(main())
