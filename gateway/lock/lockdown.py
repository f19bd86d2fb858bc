"""The first kernel act: refuse everything but loopback, before anything heavy is imported.

The rules are text that is known beforehand, loaded by the kernel's own tools, because starting
them takes 3 ms and importing python-iptables 30 to 200. Both families at once, since a family that
waits is open. Where the legacy tables do not lock, nftables does; where nothing does, every link
but the loopback goes down. Nothing here accepts anything but loopback, needs configuration, or
takes rules away: whatever fails leaves the namespace as closed as it was. Where a tool could not be
started for now, or took too long, the links wait for it down: `app.secure` sets them up again.

At the top only modules that the interpreter has loaded anyway; `-X importtime` tells.
"""

import os
import sys
import time

from gateway.lock.rules import GUARD, GUARD_CHAIN, IPV4, IPV6, NFTABLES

DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Where the tools are looked for; never by PATH."""

UNGUARDED = "lo"
"""The link that is no uplink. One called wg0 may be; if it is the tunnel that a former gateway has
left, nothing should go by it either."""

LOCK_FILES = ("/run/xtables.lock", "/dev/null")
"""What the tools of iptables lock: their own file, and one that is there on a read-only system."""

TOOL_SECONDS = 3.0
"""How long a tool may take; it waits for the lock file for one second of it."""

GUARD_LOOKS = 5
"""How often the egress guard is tried while links come and go."""

RETRY_SECONDS = 1.0
"""The pause between two attempts to lock while no tool can be run."""

NOT_NOW = "not now"
"""How the complaint begins of a tool that could not be run, or was not let finish; last_resort has
the word too."""

Job = tuple[str, tuple[str, ...], str]
"""A tool, its arguments, its input."""


def lock() -> str:
    """Close the namespace and return the name of the firewall that holds it closed.

    Raises MissingError when no firewall did; then every link is down that could be set down. And
    when a link has a name that no rule can carry; then that link is down.
    """
    firewall, all_named, error = _locked()
    if error:
        _tell(error)
    while error and _waited():
        firewall, all_named, error = _locked()
    if error:
        raise error
    if not all_named:
        _refuse_unnameable()
    if firewall == "iptables":
        _lead_python_iptables()
    return firewall


def _locked() -> tuple[str, bool, Exception | None]:
    """Close the namespace; return the firewall, whether each link has a name, and what to retry.

    The last is an error whose cause may clear by itself; the links are down until it has. Raises
    MissingError for any other.
    """
    complaints: list[str] = []
    unguarded: list[str] = []
    try:
        firewall = _firewall(complaints)
        all_named = bool(firewall) and _shut_out_packet_sockets(unguarded)
    except OSError as err:
        error = _last_resort([*complaints, str(err)])
        if not _is_shortage(err):
            raise error from err
        return "", False, error
    except BaseException:
        _last_resort(complaints)
        raise
    if firewall and not unguarded:
        return firewall, all_named, None
    error = _last_resort(unguarded or complaints)
    if not any(complaint.startswith(NOT_NOW) for complaint in unguarded or complaints):
        raise error
    return "", False, error


def _waited() -> bool:
    """Wait until the next attempt is due; return whether there is to be one."""
    import signal  # noqa: PLC0415 - slow, and seldom needed

    # Blocked, as in `gateway.__main__`: process 1 would not notice them otherwise.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    return signal.sigtimedwait(stop, RETRY_SECONDS) is None


def _firewall(complaints: list[str]) -> str:
    """Close the namespace by the first firewall that can; return its name, or nothing."""
    if _by_iptables(complaints):
        return "iptables"
    return "nftables" if _run([("nft", ("-f", "-"), NFTABLES)], {}, complaints) == [True] else ""


def _by_iptables(complaints: list[str]) -> bool:
    """Load the legacy tables of both families; say whether both are closed."""
    open_ = [("iptables-legacy-restore", IPV4), ("ip6tables-legacy-restore", IPV6)]
    for lock_file in LOCK_FILES:
        jobs: list[Job] = [(tool, ("-w", "1"), text) for tool, text in open_]
        loaded = _run(jobs, {"XTABLES_LOCKFILE": lock_file}, complaints)
        open_ = [job for job, done in zip(open_, loaded, strict=True) if not done]
        if not open_:
            return True
    return open_ == [("ip6tables-legacy-restore", IPV6)] and not _has_ipv6()


def _shut_out_packet_sockets(complaints: list[str]) -> bool:
    """Put the egress guard on every link, where this kernel has it; say whether each has a name.

    So that whatever ends the gateway before `secure` leaves no way out for packet sockets either.
    Kernels before Linux 6.16 refuse the whole table when one link has gone since it was listed, so
    the links that are left are tried again. Any other refusal is left to `secure`, which reports
    that this kernel has no such hook, or sets the links down.
    """
    names = _links()
    for _ in range(GUARD_LOOKS):
        said: list[str] = []
        guarded = _guarded([name for name in names if is_nameable(name)], said)
        complaints += [line for line in said if line.startswith(NOT_NOW)]
        former, names = names, _links()
        if guarded or complaints or names == former:
            break
    return all(map(is_nameable, names))


def _links() -> list[str]:
    """Return the names of the links, the loopback left out."""
    with open("/proc/self/net/dev", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - not loaded yet
        names = [line.partition(":")[0].strip() for line in file if ":" in line]
    return [name for name in names if name != UNGUARDED]


def _guarded(names: list[str], said: list[str]) -> bool:
    """Put the egress guard on the links `names`; return whether each of them has it."""
    chains = [GUARD_CHAIN.format(name=name, chain=name.replace("@", "/a")) for name in names]
    text = GUARD.format(chains="\n".join(chains))
    return not chains or _run([("nft", ("-f", "-"), text)], {}, said) == [True]


def is_nameable(name: str) -> bool:
    """Say whether rules can carry the name of a link; the policy's word, which is not imported."""
    return all(c.isascii() and (c.isalnum() or c in "_.@-") for c in name)


def _run(jobs: list[Job], env: dict[str, str], complaints: list[str]) -> list[bool]:
    """Run tools with their texts as input, all at the same time; say which succeeded."""
    children = [_start(tool, arguments, text, env, complaints) for tool, arguments, text in jobs]
    deadline = time.monotonic() + TOOL_SECONDS
    return [child is not None and _succeeded(*child, deadline, complaints) for child in children]


def _start(
    tool: str, arguments: tuple[str, ...], text: str, env: dict[str, str], complaints: list[str]
) -> tuple[int, int] | None:
    """Start a tool with nothing of our environment; return its pid and its complaints' pipe."""
    reader, writer = os.pipe()
    try:
        listener, speaker = os.pipe()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    os.write(writer, text.encode())  # fits into the pipe: nobody reads yet
    os.close(writer)
    actions = [(os.POSIX_SPAWN_DUP2, reader, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, speaker, target) for target in (1, 2)]
    try:
        for directory in DIRECTORIES:
            path = f"{directory}/{tool}"
            try:
                pid = os.posix_spawn(path, (tool, *arguments), env, file_actions=actions)
            except FileNotFoundError:
                continue
            except OSError as err:
                if _is_shortage(err):
                    complaints.append(f"{NOT_NOW}: {tool}: {err.strerror}")
                    break
                continue
            return pid, listener
    finally:
        os.close(reader)
        os.close(speaker)
    os.close(listener)
    return None


def _succeeded(pid: int, listener: int, deadline: float, complaints: list[str]) -> bool:
    """Wait for a tool until `deadline`, then end it; keep what it said if it failed."""
    done, status = os.waitpid(pid, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.0002)
        done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        complaints.append(f"{NOT_NOW}: a tool took longer than {TOOL_SECONDS:g} s")
        status = 9
    if status:
        os.set_blocking(listener, False)
        try:
            complaints.append(os.read(listener, 4096).decode(errors="replace").strip())
        except BlockingIOError:  # ended without a word, or by us
            complaints.append(f"status {status}")
    os.close(listener)
    return not status


def _lead_python_iptables() -> None:
    """Tell python-iptables where its libraries are, which it else asks ldconfig, gcc and ld.

    The library takes these from the environment alone (iptc/util.py, iptc/xtables.py). What the
    operator has set stays.
    """
    system = f"/usr/lib/{os.uname().machine}-linux-gnu"
    if os.access(f"{system}/xtables", os.X_OK):
        os.environ.setdefault("XTABLES_LIBDIR", f"{system}/xtables")
    for directory in sys.path:
        if os.access(f"{directory}/iptc", os.X_OK):
            os.environ.setdefault("IPTABLES_LIBDIR", f"{directory}:{system}")


def _is_shortage(error: OSError) -> bool:
    from gateway.errors import is_shortage  # noqa: PLC0415 - slow, and seldom needed

    return is_shortage(error)


def _has_ipv6() -> bool:
    from gateway.system.features import has_ipv6  # noqa: PLC0415 - slow, and seldom needed

    return has_ipv6()


def _refuse_unnameable() -> None:
    from gateway.system.link_down import refuse_unnameable  # noqa: PLC0415 - slow, and seldom needed

    refuse_unnameable()


def _tell(error: Exception) -> None:
    from gateway.lock.last_resort import tell  # noqa: PLC0415 - slow, and seldom needed

    tell(error)


def _last_resort(complaints: list[str]) -> Exception:
    import signal  # noqa: PLC0415 - slow, and seldom needed

    from gateway.lock.last_resort import close_links  # noqa: PLC0415 - as above

    # Blocked before a link goes down: from then on the end is said in words (`_waited`).
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    return close_links(complaints)
