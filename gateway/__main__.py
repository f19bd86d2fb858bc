"""Process 1: closes the namespace, then runs the command line."""

import sys

from gateway.lock import host, lockdown

USAGE = 2
"""The exit code of a wrong configuration (`commands.exit_codes`)."""

HARMLESS = frozenset(
    {"check", "doctor", "init", "reload", "servers", "status", "verify", "help"}
    | {"pause", "resume", "reconnect", "next"}
    | {"-h", "--help", "--version"}
)
"""The commands that do not lock. All others do, also misspelt ones: a wrong command line is a wrong
configuration, and leaves the namespace closed."""


def main() -> int:
    """Run the command that the arguments name, `run` by default; return the exit code.

    An error here opens nothing: the rules stay as they are.
    """
    argv = sys.argv[1:]
    harmless = not HARMLESS.isdisjoint(argv[:1]) or not {"-h", "--help"}.isdisjoint(argv)
    _replace_closed_streams()
    try:
        if not harmless:
            if host.is_refused():
                sys.stderr.write(f"{host.REFUSED}\n")
                return USAGE
            lockdown.lock(vault=argv[:1] == ["vault"])
            _prevent_core_dumps()
            _block_stop_signals()
        from gateway import cli  # noqa: PLC0415 - after the lock

        return _printed(argv) if harmless else cli.main(argv)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the end of the program: reported, with an exit code
        return _reported(error)


def _replace_closed_streams() -> None:
    """Lead those of the standard streams nowhere that were closed when this process was started.

    Their numbers would go to the next files and sockets, into which a tool then writes messages.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    import os  # noqa: PLC0415 - seldom needed

    try:
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stderr
            os.set_inheritable(opened, True)
        os.close(opened)
        sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - a descriptor
        sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as above
        sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above
    except OSError:  # the lock is more important
        return


def _reported(error: Exception) -> int:
    from gateway.lock.last_resort import report  # noqa: PLC0415 - slow, and seldom needed

    report(error)
    return 1


def _printed(argv: list[str]) -> int:
    """Run a harmless command; return its exit code once all of its output is written.

    If a reader has gone it is that of SIGPIPE, as of other programs after `| head`.
    """
    from gateway import cli  # noqa: PLC0415 - after the lock

    try:
        try:
            code = cli.main(argv)
        except SystemExit as end:  # of argparse: after --help, or a wrong command line
            code = end.code if isinstance(end.code, int) else USAGE
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BrokenPipeError:
        _drop_the_rest()
        return 141
    except OSError as error:
        code = _reported(error)
        _drop_the_rest()
    return code


def _drop_the_rest() -> None:
    """Have Python write what it still has to nowhere: at its end it would report that it cannot."""
    import os  # noqa: PLC0415 - slow, and seldom needed

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _prevent_core_dumps() -> None:
    """Prevent core dumps of this process and its children, which would contain the keys.

    The limit is 1 instead of 0: if core dumps go to a program, which may be the host's, the kernel
    ignores 0 and respects 1 (fs/coredump.c). A limit that is 0 already cannot be raised.
    """
    import resource  # noqa: PLC0415 - slow, so after the lock

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except ValueError:
        return


def _block_stop_signals() -> None:
    """Block the signals that stop or reload the gateway, or ask something of it, until its loop is.

    See `daemon.main.serve`. Process 1 would lose them: without a handler they have no effect on it,
    unless they are blocked (signal(7)). Any other process would end in the middle of its work.
    """
    import signal  # noqa: PLC0415 - slow, so after the lock

    orders = {signal.SIGRTMIN + number for number in range(1, 5)}  # system.order_signals
    stops = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops | orders)


if __name__ == "__main__":
    raise SystemExit(main())
