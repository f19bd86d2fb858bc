"""Rejects everything except loopback, before anything heavy is imported.

The rules are constant text. The kernel's own tools load it, because starting them takes 3 ms and
importing python-iptables 30 to 200. Both families are loaded at once: a family that waits is open.
If the legacy tables cannot lock, nftables does; if neither can, every link except the loopback
goes down. Nothing here accepts anything except loopback, needs configuration, or removes rules, so
every failure leaves the namespace as closed as it was. If a tool cannot be started yet, or takes
too long, the links stay down until it works: `daemon.main.secure` sets them up again.

This module imports only what the interpreter has loaded anyway (`-X importtime` shows it).
"""

import os
import sys
import time

from gateway.lock.rules import GUARD, GUARD_CHAIN, IPV4, IPV6, NFTABLES

DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""The directories of the tools; PATH is never used."""

UNGUARDED = "lo"
"""The only link without a guard. An uplink may be called wg0; a tunnel that an earlier gateway left
behind must not send anything either."""

LOCK_FILES = ("/run/xtables.lock", "/dev/null")
"""What the tools of iptables lock: their own file, or one that exists on a read-only system."""

TOOL_SECONDS = 3.0
"""How long a tool may take, including up to one second for the lock file."""

LONGEST_MESSAGE = 4096
"""Octets of what a tool says that are kept, from its beginning."""

GUARD_LOOKS = 5
"""How often the egress guard is tried while links come and go."""

RETRY_SECONDS = 1.0
"""The pause between two attempts to lock while no tool can be started."""

NOT_NOW = "not now"
"""How a failure begins that may clear: a tool did not start, or reached its time limit.
last_resort has the same text."""

Job = tuple[str, tuple[str, ...], str]
"""A tool, its arguments, its input."""


def lock(*, vault: bool = False) -> str:
    """Close the namespace and return the name of the firewall that keeps it closed.

    For a `vault` that is nftables without a guard, because it has no uplink. Raises MissingError if
    no firewall can; then every link is down that could be set down. It does so too if rules cannot
    use the name of a link; then that link is down.
    """
    firewall, all_named, error = _locked(vault=vault)
    if error:
        _report(error)
    while error and _wait_for_retry():
        firewall, all_named, error = _locked(vault=vault)
    if error:
        raise error
    if not all_named:
        _refuse_unnameable()
    if firewall == "iptables":
        _set_library_paths()
    return firewall


def _locked(*, vault: bool) -> tuple[str, bool, Exception | None]:
    """Close the namespace; return the firewall, whether rules can use every name, and an error.

    The error is one whose cause may clear by itself; the links are down until then. Raises
    MissingError for any other error.
    """
    failures: list[str] = []
    guard_failures: list[str] = []
    try:
        firewall = _firewall(failures, vault=vault)
        all_named = bool(firewall) and (vault or _load_guard(guard_failures))
    except OSError as err:
        error = _close_links([*failures, str(err)])
        if not _is_shortage(err):
            raise error from err
        return "", False, error
    except BaseException:
        _close_links(failures)
        raise
    if firewall and not guard_failures:
        return firewall, all_named, None
    error = _close_links(guard_failures or failures)
    if not any(failure.startswith(NOT_NOW) for failure in guard_failures or failures):
        raise error
    return "", False, error


def _wait_for_retry() -> bool:
    """Wait until the next attempt is due; return False if a signal asks the gateway to stop."""
    import signal  # noqa: PLC0415 - slow, and seldom needed

    # Blocked, as in `gateway.__main__`: process 1 would lose them otherwise.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    return signal.sigtimedwait(stop, RETRY_SECONDS) is None


def _firewall(failures: list[str], *, vault: bool) -> str:
    """Close the namespace with the first firewall that works; return its name, or ""."""
    if not vault and _load_iptables(failures):
        return "iptables"
    return "nftables" if _run([("nft", ("-f", "-"), NFTABLES)], {}, failures) == [True] else ""


def _load_iptables(failures: list[str]) -> bool:
    """Load the legacy tables of both families; return whether both are closed."""
    open_ = [("iptables-legacy-restore", IPV4), ("ip6tables-legacy-restore", IPV6)]
    for lock_file in LOCK_FILES:
        jobs: list[Job] = [(tool, ("-w", "1"), text) for tool, text in open_]
        loaded = _run(jobs, {"XTABLES_LOCKFILE": lock_file}, failures)
        open_ = [job for job, done in zip(open_, loaded, strict=True) if not done]
        if not open_:
            return True
    return open_ == [("ip6tables-legacy-restore", IPV6)] and not _has_ipv6()


def _load_guard(failures: list[str]) -> bool:
    """Put the egress guard on every link; return whether rules can use the names of all links.

    It stops packet sockets if the gateway ends before `daemon.main.secure`. Kernels before Linux
    6.16 refuse the whole table if a link has gone since it was listed, so the links that are left
    are tried again. `secure` handles any other refusal: it reports a kernel without the egress
    hook, or sets the links down.
    """
    names = _links()
    for _ in range(GUARD_LOOKS):
        messages: list[str] = []
        guarded = _guarded([name for name in names if is_nameable(name)], messages)
        failures += [line for line in messages if line.startswith(NOT_NOW)]
        former, names = names, _links()
        if guarded or failures or names == former:
            break
    return all(map(is_nameable, names))


def _links() -> list[str]:
    """Return the names of the links, the loopback left out."""
    with open("/proc/self/net/dev", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - not loaded yet
        names = [line.partition(":")[0].strip() for line in file if ":" in line]
    return [name for name in names if name != UNGUARDED]


def _guarded(names: list[str], messages: list[str]) -> bool:
    """Put the egress guard on the links `names`; return whether each of them has it."""
    chains = [GUARD_CHAIN.format(name=name, chain=name.replace("@", "/a")) for name in names]
    text = GUARD.format(chains="\n".join(chains))
    return not chains or _run([("nft", ("-f", "-"), text)], {}, messages) == [True]


def is_nameable(name: str) -> bool:
    """Return whether rules can use the name of a link, as `is_nameable` of the policy does."""
    return all(c.isascii() and (c.isalnum() or c in "_.@-") for c in name)


def _run(jobs: list[Job], env: dict[str, str], failures: list[str]) -> list[bool]:
    """Run tools in parallel, each with its text as input; return which of them succeeded."""
    children = [_start(job, env, failures) for job in jobs]
    deadline = time.monotonic() + TOOL_SECONDS
    return [
        child is not None and _succeeded(job[0], *child, deadline, failures)
        for job, child in zip(jobs, children, strict=True)
    ]


def _start(job: Job, env: dict[str, str], failures: list[str]) -> tuple[int, int] | None:
    """Start a tool without our environment; return its pid and the file with its output.

    It could fill a pipe: without the egress hook, nft has an error for each link.
    """
    tool, arguments, text = job
    pid, ours, failure = 0, list[int](), None
    try:
        ours += os.pipe()
        ours.append(os.memfd_create("output"))
        ends = zip((ours[0], ours[2], ours[2]), (0, 1, 2), strict=True)
        streams = [(os.POSIX_SPAWN_DUP2, end, number) for end, number in ends]
        pid = _spawned((tool, *arguments), env, streams)
    except OSError as err:
        failure = err
    if not pid:
        for descriptor in ours:
            os.close(descriptor)
        if failure:
            when = f"{NOT_NOW}: " if _is_shortage(failure) else ""
            failures.append(f"{when}{tool}: {failure.strerror}")
        return None
    reader, writer, output = ours
    os.close(reader)
    _write(writer, text.encode())
    os.close(writer)
    return pid, output


def _spawned(argv: tuple[str, ...], env: dict[str, str], files: list[tuple[int, int, int]]) -> int:
    """Start a tool and return its pid, 0 if it is nowhere. Raises OSError in a shortage."""
    for directory in DIRECTORIES:
        try:
            return os.posix_spawn(f"{directory}/{argv[0]}", argv, env, file_actions=files)
        except FileNotFoundError:
            continue
        except OSError as err:
            if _is_shortage(err):
                raise
    return 0


def _write(writer: int, data: bytes) -> None:
    """Write `data` to a tool, which may end or hang before it has read all of it.

    The guard of 430 links is more than a pipe takes at once, that of 25 where the user has many
    pipes (pipe(7)). Of a text that is cut off no tool carries out a table that is not whole.
    """
    os.set_blocking(writer, False)
    deadline = time.monotonic() + TOOL_SECONDS
    while data and time.monotonic() < deadline:
        try:
            data = data[os.write(writer, data) :]
        except BlockingIOError:
            time.sleep(0.0002)
        except BrokenPipeError:
            return


def _succeeded(tool: str, pid: int, output: int, deadline: float, failures: list[str]) -> bool:
    """Wait for a tool until `deadline`, then kill it; keep what it said if it failed."""
    done, status = os.waitpid(pid, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.0002)
        done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, 9)
        _, status = os.waitpid(pid, 0)
        failures.append(f"{NOT_NOW}: {tool} took longer than {TOOL_SECONDS:g} s")
    elif status:
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"status {code}"
        said = os.pread(output, LONGEST_MESSAGE, 0).decode(errors="replace").strip()
        failures.append(said or f"{tool} ended with {how} and no message")
    os.close(output)
    return not status


def _set_library_paths() -> None:
    """Set where python-iptables finds its libraries; otherwise it runs ldconfig, gcc and ld.

    It reads these paths only from the environment (iptc/util.py, iptc/xtables.py). What the
    operator has set stays.
    """
    system = f"/usr/lib/{os.uname().machine}-linux-gnu"
    if os.access(f"{system}/xtables", os.X_OK):
        os.environ.setdefault("XTABLES_LIBDIR", f"{system}/xtables")
    for directory in sys.path:
        if os.access(f"{directory}/iptc", os.X_OK):
            os.environ.setdefault("IPTABLES_LIBDIR", f"{directory}:{system}")


def _is_shortage(error: OSError) -> bool:
    try:
        from gateway.errors import is_shortage  # noqa: PLC0415 - slow, and seldom needed
    except OSError:  # no file can be opened
        return True
    return is_shortage(error)


def _has_ipv6() -> bool:
    from gateway.system.features import has_ipv6  # noqa: PLC0415 - slow, and seldom needed

    return has_ipv6()


def _refuse_unnameable() -> None:
    from gateway.system.link_down import refuse_unnameable  # noqa: PLC0415 - slow, and seldom needed

    refuse_unnameable()


def _report(error: Exception) -> None:
    from gateway.lock.last_resort import report  # noqa: PLC0415 - slow, and seldom needed

    report(error)


def _close_links(failures: list[str]) -> Exception:
    import signal  # noqa: PLC0415 - slow, and seldom needed

    from gateway.lock.last_resort import close_links  # noqa: PLC0415 - as above

    # Blocked before a link goes down: from then on a stop is reported (`_wait_for_retry`).
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    return close_links(failures)
