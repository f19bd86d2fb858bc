"""A process that a vault starts for its gateway: its keeper, with small real programs.

What unbound does there is shown in promises/test_vault_resolver.py.
"""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import MissingError, ProcessEnded, ProcessError, is_shortage
from gateway.model.name_server import RESOLVER_USER, LocalZone, NameServer
from gateway.policy.unbound import CERTIFICATES
from gateway.services.resolver.in_vault import AUTHORITIES, CONFIGURATION, ZONE, FilesInVault
from gateway.services.resolver.service import Resolver
from gateway.system import vault_child, vault_keeper
from gateway.system.child import Child, Program
from gateway.system.netns import OWN
from gateway.system.vault import VaultNetns
from gateway.system.vault_child import start_as, user_for
from gateway.system.vault_process import CHANNEL
from tests.lab.process import eventually

SLEEPS = "import time; time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); {SLEEPS}"


class FakeVault(VaultNetns):
    """A vault that starts the program `script` of Python with the real keeper.

    `refuses` has the error number of its answer for each user.
    """

    def __init__(self, script: str = "", refuses: Mapping[int, int] | None = None) -> None:
        self.directory = Path("/nowhere")
        self.keepers: list[subprocess.Popen[bytes]] = []
        self._script = script
        self._refuses = refuses or {}

    def can_resolve(self, user: int) -> None:
        """Raise the error that was asked for."""
        if number := self._refuses.get(user):
            raise OSError(number, os.strerror(number))

    def resolver(self, user: int, descriptors: Mapping[int, int]) -> socket.socket:
        """Start the keeper as `vault_process` does."""
        self.can_resolve(user)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = [sys.executable, "-I", "-S"]
        keeper = str(vault_keeper.__file__)
        with theirs:
            numbers = {CHANNEL: theirs.fileno(), **descriptors}
            # Out of the way first: one of ours may have a number that another is to get.
            code = (
                "import fcntl, os, sys; n = eval(sys.argv[1]); "
                "n = {b: fcntl.fcntl(a, fcntl.F_DUPFD_CLOEXEC, 200) for b, a in n.items()}; "
                "[os.dup2(a, b) for b, a in n.items()]; "
                "os.execv(sys.argv[2], sys.argv[2:])"
            )
            argv = [*python, keeper, str(CHANNEL), *python, "-u", "-c", self._script]
            self.keepers.append(
                subprocess.Popen(
                    [*python, "-c", code, repr(numbers), *argv], pass_fds=[*numbers.values()]
                )
            )
        return ours

    def wait(self) -> None:
        """Reap the keepers, which end by themselves."""
        for keeper in self.keepers:
            keeper.wait(10)


def on_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end."""
    asyncio.run(asyncio.wait_for(work, 20))


def child_in(vault: FakeVault, lines: list[str], **options: Any) -> Child:
    """Return a program of the vault, whose lines are added to `lines`."""

    async def ready() -> bool:
        return bool(lines)

    program = Program(("resolver",), netns=vault, start=start_as(0), **options)
    return Child(program, ready=ready, on_line=lines.append)


def test_its_lines_arrive_and_it_ends_when_it_is_stopped() -> None:
    """By SIGTERM, like a child of our own; and a descriptor has its number there."""
    lines: list[str] = []
    made = os.memfd_create("text")
    os.write(made, b"configured")
    script = f"print(open('/dev/fd/{CONFIGURATION}').read()); {SLEEPS}"
    vault = FakeVault(script)

    async def live() -> None:
        child = child_in(vault, lines, descriptors={CONFIGURATION: made}, grace=5.0)
        await child.start()
        assert lines == ["configured"]
        await child.stop()
        assert child.process is not None
        assert child.process.end.code == -signal.SIGTERM

    on_a_loop(live())
    vault.wait()
    os.close(made)


def test_its_own_end_is_an_event_with_its_last_lines() -> None:
    """With its exit code."""
    vault = FakeVault("import sys; print('Address already in use'); sys.exit(3)")

    async def never() -> bool:
        return False

    async def live() -> None:
        child = Child(Program(("resolver",), netns=vault, start=start_as(0)), ready=never)
        with pytest.raises(ProcessEnded, match="already in use") as caught:
            await child.start()
        assert caught.value.code == 3

    on_a_loop(live())
    vault.wait()


def test_one_that_is_deaf_is_killed() -> None:
    """After its grace."""
    lines: list[str] = []
    vault = FakeVault(DEAF)

    async def live() -> None:
        child = child_in(vault, lines, grace=0.1)
        await child.start()
        await child.stop()
        assert child.process is not None
        assert child.process.end.code == -signal.SIGKILL

    on_a_loop(live())
    vault.wait()


def test_what_cannot_be_confirmed_is_an_error_and_done_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its keeper is halted: the loop does not wait for it. Then the program is killed."""
    monkeypatch.setattr(vault_child, "KILL_TIME", 0.1)
    lines: list[str] = []
    vault = FakeVault(f"import os; print(os.getpid()); {SLEEPS}")

    async def live() -> None:
        child = child_in(vault, lines, grace=0.1)
        await child.start()
        vault.keepers[0].send_signal(signal.SIGSTOP)
        with pytest.raises(ProcessError, match="does not end in the vault"):
            await child.stop()
        assert not child.running

    on_a_loop(live())
    assert Path(f"/proc/{lines[0]}").exists(), "control"
    vault.keepers[0].send_signal(signal.SIGCONT)
    eventually(lambda: not Path(f"/proc/{lines[0]}").exists(), timeout=5, what="its end")
    vault.wait()


def test_it_is_killed_when_its_gateway_ends() -> None:
    """The other end of its keeper's socket is closed then."""
    vault = FakeVault(DEAF)
    read_end, write_end = os.pipe()
    with vault.resolver(0, {1: write_end, 2: write_end}):
        os.close(write_end)
        with open(read_end, "rb", closefd=False) as output:
            assert output.readline() == b"deaf\n"
    assert os.read(read_end, 10) == b"", "no process has it any more"
    os.close(read_end)
    vault.wait()
    assert vault.keepers[0].returncode == 0


def test_a_keeper_that_has_gone_is_the_end_of_it() -> None:
    """The program asks for that by itself, as that of a resolver does."""
    lines: list[str] = []
    vault = FakeVault(f"import ctypes; ctypes.CDLL(None).prctl(1, 9); print('up'); {SLEEPS}")

    async def live() -> None:
        child = child_in(vault, lines)
        await child.start()
        vault.keepers[0].kill()
        await child.ended()
        assert child.process is not None
        assert child.process.end.code == -signal.SIGKILL

    on_a_loop(live())
    vault.wait()


@pytest.mark.parametrize(
    ("refuses", "expected"),
    [({}, RESOLVER_USER), ({RESOLVER_USER: errno.EPERM}, 0)],
)
def test_it_has_a_user_of_its_own_where_the_vault_can(
    refuses: dict[int, int], expected: int
) -> None:
    """Else it runs as root, and the limit says why."""
    vault = FakeVault(refuses=refuses)
    assert user_for(vault, RESOLVER_USER) == expected
    files = FilesInVault(vault)
    files.prepare()
    assert bool(files.unconfined[0]) == (expected == 0)
    zones = NameServer(local=(LocalZone("home.lan", (ip_address("192.168.1.1"),)),))
    texts = [
        [it.text for it in Resolver(server, files, vault, lambda: 0.0).limits]
        for server in (NameServer(), zones)
    ]
    assert [["DNS_LOCAL_ZONES has no effect" in it for it in each] for each in texts] == (
        [[], []] if expected else [[False], [True]]
    )


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOENT, "use our image for the vault"), (errno.EINVAL, "recreate the vault")],
)
def test_a_vault_that_cannot_run_one_is_reported_with_the_remedy(number: int, remedy: str) -> None:
    """The program is missing, or the vault is older than that. A shortage is another error."""
    refuses = {RESOLVER_USER: number, 0: number}
    vault = FakeVault(refuses=refuses)
    for ask in (lambda: user_for(vault, RESOLVER_USER), lambda: started(vault)):
        with pytest.raises(MissingError) as caught:
            ask()
        assert remedy in caught.value.remedy
    short = FakeVault(refuses={RESOLVER_USER: errno.EMFILE, 0: errno.EMFILE})
    for ask in (lambda: user_for(short, RESOLVER_USER), lambda: started(short)):
        with pytest.raises((OSError, ProcessError)) as shortage:
            ask()
        assert is_shortage(shortage.value)


def started(vault: FakeVault) -> None:
    """Start the vault's resolver."""

    async def live() -> None:
        start_as(0)(("resolver",), on_line=lambda _: None, netns=vault)

    asyncio.run(live())


def test_it_is_started_in_a_vault_and_nowhere_else() -> None:
    """A namespace that can be entered has children of ours."""
    with pytest.raises(TypeError):
        start_as(0)(("resolver",), on_line=lambda _: None, netns=OWN)


def test_what_it_reads_is_in_memory_and_cannot_be_changed(tmp_path: Path) -> None:
    """The configuration, the user's authorities, and the zone, which goes when no text has it."""
    own = tmp_path / "own.pem"
    own.write_text("certificate")
    own.chmod(0o600)
    files = FilesInVault(FakeVault(), str(own))
    assert files.readable_authorities() == f"/dev/fd/{AUTHORITIES}"
    for written, is_used in ((b"the zone", True), (b"other", True), (b"torn", False)):
        zone = files.new_zone()
        os.write(zone, written)
        if is_used:
            files.use_zone(zone)
        os.close(zone)
    text = f"{files.zone} /dev/fd/{AUTHORITIES}"
    program = files.program(text)
    expected = {CONFIGURATION: text, AUTHORITIES: "certificate", ZONE: "other"}
    assert program.descriptors.keys() == expected.keys()
    for number, ours in program.descriptors.items():
        assert Path(f"/proc/self/fd/{ours}").read_text() == expected[number]
        assert Path(f"/proc/self/fd/{ours}").stat().st_mode & 0o444 == 0o444
        with pytest.raises(OSError, match=r"not permitted|Bad file descriptor"):
            os.write(ours, b"x")
    assert files.program("nothing").descriptors.keys() == {CONFIGURATION, AUTHORITIES}
    assert FilesInVault(FakeVault()).readable_authorities() == CERTIFICATES


Request = Callable[[VaultNetns], object]


@pytest.mark.parametrize(
    "request_",
    [lambda it: it.can_resolve(7), lambda it: it.resolver(7, {1: 1, CONFIGURATION: 2}).close()],
)
def test_descriptors_go_along_with_a_request(tmp_path: Path, request_: Request) -> None:
    """Each with the number that it gets; without them, nothing is to be started."""
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place))
        listener.listen()
        heard: list[tuple[bytes, int]] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                words, given, _, _ = socket.recv_fds(connection, 100, 8)
                heard.append((words[16:], len(given)))
                for it in given:
                    os.close(it)
                answered = [connection.fileno()] if given else []
                socket.send_fds(connection, [bytes(4)], answered)

        thread = threading.Thread(target=serve)
        thread.start()
        vault = VaultNetns(place)
        request_(vault)
        thread.join()
        vault.close()
    assert heard in ([(b"", 0)], [(bytes([1, CONFIGURATION]), 2)])
