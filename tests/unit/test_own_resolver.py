"""The gateway's own resolver as seen from the gateway: its files, its control socket, its lines.

What the real one does is shown in promises/test_own_resolver.py.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType

import pytest

from gateway.errors import MissingError, NetworkError
from gateway.model.name_server import BlockFile, BlockList, NameServer, Upstream
from gateway.policy.unbound import CERTIFICATES, Unbound
from gateway.policy.upstreams import OURS
from gateway.services.resolver import blocking
from gateway.services.resolver.files import Files
from gateway.services.resolver.lines import REFUSED, REFUSED_FOR
from gateway.services.resolver.service import Resolver
from gateway.system import process, resolver_control
from gateway.system.kept_ports import KeptPorts
from gateway.system.netns import OWN, Netns
from gateway.system.probe import arrivals
from gateway.system.resolver_control import LARGEST, Control
from tests.fakes.clock import Clock

Replace = Callable[[ModuleType, str], None]
UPSTREAM = Upstream(ip_address("192.0.2.53"), 853, "dns.example", "example")


def made(tmp_path: Path, clock: Callable[[], float]) -> Resolver:
    """Return a resolver that does not run."""
    return Resolver(NameServer((UPSTREAM,)), Files(tmp_path), OWN, clock)


def asked(tmp_path: Path, answer: bytes, work: Callable[[Control], Awaitable[object]]) -> object:
    """Return what `work` returns with a control socket that gives `answer` to every command."""
    path = tmp_path / "control"
    commands: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands.append(await reader.readline())
        writer.write(answer)
        try:
            await writer.drain()
        except ConnectionError:
            return
        writer.close()

    async def run() -> object:
        server = await asyncio.start_unix_server(serve, str(path))
        async with server:
            return await work(Control(path))

    found = asyncio.run(run())
    assert all(it.startswith(b"UBCT1 ") for it in commands)
    return found


def test_a_command_is_sent_and_answered(tmp_path: Path) -> None:
    """As unbound-control sends it."""
    assert asked(tmp_path, b"ok\n", lambda it: it.send("flush_infra all")) == "ok\n"


def test_counts_are_read_and_everything_else_is_ignored(tmp_path: Path) -> None:
    """A number that is none, too."""
    text = b"total.num.cachehits=5\ntotal.num.cachemiss=x\nthread0.num.queries=7\nhistogram=1\n"
    assert asked(tmp_path, text, lambda it: it.counts()) == (("cached", 5),)


def test_an_endless_answer_is_cut(tmp_path: Path) -> None:
    """A program that has the socket cannot fill the memory."""
    found = asked(tmp_path, b"x" * (4 * LARGEST), lambda it: it.send("status"))
    assert len(str(found)) <= 2 * LARGEST


def test_no_answer_in_time_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a refusal, and a socket that is not there."""
    monkeypatch.setattr(resolver_control, "ANSWER_TIME", 0.05)
    path = tmp_path / "control"

    async def silent() -> None:
        over = asyncio.Event()

        async def quiet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_unix_server(quiet, str(path)):
            with pytest.raises(NetworkError, match="no answer"):
                await Control(path).send("status")
            over.set()
            await asyncio.sleep(0.05)

    asyncio.run(silent())
    path.unlink(missing_ok=True)
    with pytest.raises(NetworkError):
        asyncio.run(Control(path).send("status"))
    assert asyncio.run(Control(path).is_served()) is False
    with pytest.raises(NetworkError, match="refuses"):
        asked(tmp_path, b"error unknown command\n", lambda it: it.send("x"))


def test_one_that_asks_the_tunnel_before_does_not_answer(tmp_path: Path) -> None:
    """Health stays red from another server's tunnel until its own resolver is asked."""
    other = Upstream(ip_address("192.0.2.54"), 853, "dns.example", "example")
    resolver = made(tmp_path, Clock())
    resolver.follow((UPSTREAM,))
    resolver._has_started(resolver._wanted)  # noqa: SLF001 - a process of the real one is a lab test
    answers = [resolver.report.answers]
    for upstream in (other, UPSTREAM):
        resolver.follow((upstream,))
        answers.append(resolver.report.answers)
    assert answers == [True, False, True]


def test_its_directory_is_its_own_and_the_configuration_is_not(tmp_path: Path) -> None:
    """It may make its socket, and change nothing that it reads."""
    files = Files(tmp_path / "run")
    files.make_directories(os.getuid())
    files.configure("server:\n")
    assert files.control.parent.stat().st_mode & 0o777 == 0o700
    assert files.directory.stat().st_mode & 0o777 == 0o711
    assert files.configuration.read_text() == "server:\n"
    assert files.configuration.stat().st_mode & 0o777 == 0o644
    assert files.control.parent not in files.configuration.parents


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    """It is not followed."""
    files = Files(tmp_path)
    target = tmp_path / "target"
    target.write_text("kept")
    files.configuration.symlink_to(target)
    files.configure("server:\n")
    assert target.read_text() == "kept"
    assert files.configuration.read_text() == "server:\n"


def test_a_place_that_cannot_be_written_is_reported_with_the_remedy() -> None:
    """As with a read-only root."""
    with pytest.raises(MissingError) as caught:
        Files(Path("/proc/nothing/here")).make_directories(0)
    assert "tmpfs: [/proc/nothing/here]" in caught.value.remedy


def test_authorities_of_the_user_are_copied(tmp_path: Path) -> None:
    """They may be readable for root only; a FIFO is refused, and does not wait for its writer."""
    own = tmp_path / "own.pem"
    own.write_text("certificate")
    own.chmod(0o600)
    copy = Path(Files(tmp_path, str(own)).readable_authorities())
    assert copy.read_text() == "certificate"
    assert copy.stat().st_mode & 0o777 == 0o644
    assert Files(tmp_path).readable_authorities() == CERTIFICATES
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="not a regular file"):
        Files(tmp_path, str(fifo)).readable_authorities()


def test_a_refused_certificate_is_reported_for_a_while(tmp_path: Path) -> None:
    """With the resolver that has it; then it may be right again."""
    clock = Clock()

    async def run() -> None:
        resolver = made(tmp_path, clock)
        resolver.follow((UPSTREAM,))
        resolver._has_started(resolver._wanted)  # noqa: SLF001 - without a process
        assert not resolver.report.problem
        for _ in range(3):
            resolver._lines.heard(f"[1] unbound[2:0] error: ssl handshake failed {REFUSED}")  # noqa: SLF001
        assert "192.0.2.53 (example) over TLS" in resolver.report.problem
        assert "DNS_UPSTREAM_RESOLVERS" in resolver.report.remedy
        clock.now += REFUSED_FOR
        assert not resolver.report.problem

    asyncio.run(run())


def test_the_report_says_which_resolvers_are_asked(tmp_path: Path) -> None:
    """Before it has started, too."""

    async def run() -> None:
        resolver = made(tmp_path, Clock())
        assert resolver.report.asks == "no resolver"
        resolver.follow((UPSTREAM,))
        assert resolver.report.asks == "192.0.2.53 (example) over TLS"
        assert not resolver.report.answers

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"ok\n", b"error no auth-zone\n"])
def test_other_lists_are_read_by_the_process_that_runs_or_by_another_one(
    tmp_path: Path, answer: bytes
) -> None:
    """A probe waits while it reads them; if it cannot, it is started again."""
    listed = BlockList("", "lists.example", "/ads")
    kept = tmp_path / "kept"
    kept.write_text("ads.example CNAME .\nlists.example CNAME .\n")

    async def run() -> None:
        process.reap_orphans()
        server = NameServer((UPSTREAM,), lists=(listed,))
        resolver = Resolver(server, Files(tmp_path), OWN, Clock())
        Files(tmp_path).control.parent.mkdir()
        asked, over = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"UBCT1 auth_zone_reload blocked\n"
            asked.set()
            await over.wait()
            writer.write(answer)
            writer.close()

        async with await asyncio.start_unix_server(serve, str(Files(tmp_path).control)):
            task = asyncio.create_task(resolver.block((BlockFile(str(kept), 0, 0),)))
            await asyncio.wait_for(asked.wait(), 20)
            assert resolver.busy.locked()
            over.set()
            assert await task
        assert not resolver.busy.locked()
        assert resolver._is_stale is answer.startswith(b"error")  # noqa: SLF001 - it does not run
        assert (resolver.report.blocks, resolver.zone.names) == (1, {str(kept): 1})

    asyncio.run(run())
    assert "lists.example CNAME rpz-passthru." in Files(tmp_path).zone.read_text("ascii")


def test_lists_that_cannot_be_read_now_leave_the_rules_that_were_read_last(
    tmp_path: Path, replaced_process: Replace
) -> None:
    """Whole: the resolver reads the file again when the tunnel has gone, or in a new process."""
    listed = tmp_path / "listed"
    listed.write_text("ads.example CNAME .\n")
    files, blocks = Files(tmp_path), (BlockFile(str(listed), 0, 0),)

    async def run() -> None:
        process.reap_orphans()
        resolver = Resolver(NameServer((UPSTREAM,)), files, OWN, Clock())
        resolver.know((), blocks)
        assert (await resolver._with_zone(Unbound((), "", blocks=blocks))).zone  # noqa: SLF001
        before = files.zone.read_text("ascii")
        assert "ads.example CNAME ." in before
        replaced_process(blocking, "import os; os.write(3, b'torn'); os._exit(9)")
        again = await resolver._with_zone(Unbound((), "", blocks=blocks))  # noqa: SLF001
        assert (files.zone.read_text("ascii"), again.zone) == (before, str(files.zone))
        assert resolver.report.blocks == 1
        none = await resolver._with_zone(Unbound((), ""))  # noqa: SLF001
        assert (none.zone, resolver.report.blocks) == ("", 0)

    asyncio.run(run())


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_its_ports_are_shared_only_while_it_begins(tmp_path: Path, kind: int) -> None:
    """Others could have them else, also while it is away."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = (ip_address("127.0.0.1"), free.getsockname()[1])
    kept, sign = KeptPorts(), tmp_path / "sign"

    def can_be_had() -> bool:
        with socket.socket(socket.AF_INET, kind) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((str(place[0]), place[1]))
                if kind == socket.SOCK_STREAM:
                    one.listen()
            except OSError:
                return False
            return True

    async def ready() -> bool:
        return True

    is_ready = kept.shared_until([place], sign, ready)
    assert can_be_had()
    sign.touch()
    assert asyncio.run(is_ready())
    assert not can_be_had()
    kept.shared_until([place], tmp_path / "none", ready)
    assert can_be_had()
    kept.keep()
    assert not can_be_had()
    for one in kept._sockets.values():  # noqa: SLF001 - the gateway never lets go of them
        one.close()


class Refusing(Netns):
    """A namespace in which no socket of IPv6 can be opened, because of the error `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(None, "refusing")
        self._number = number

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Raise the error."""
        del family, kind, protocol
        raise OSError(self._number, os.strerror(self._number))


def test_without_ipv6_redirected_questions_arrive_by_ipv4_alone() -> None:
    """Control: a shortage says nothing about it, else IPv6 would be lost until the next start."""
    assert arrivals(Refusing(errno.EAFNOSUPPORT)) == (OURS,)
    with pytest.raises(OSError, match="Too many open files"):
        arrivals(Refusing(errno.EMFILE))
