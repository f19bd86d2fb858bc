"""Lists of blocked names that are fetched: by a real process over TLS on loopback, and when."""

import asyncio
import gzip
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.commands.check.trial import try_variables
from gateway.commands.showing import lines
from gateway.daemon import block_lists
from gateway.daemon.block_lists import FIRST_PAUSE, LONGEST_PAUSE, BlockLists, Tools
from gateway.errors import MissingError, NetworkError
from gateway.model import Address, Errand
from gateway.model.name_server import BlockFile, BlockList, NameServer
from gateway.policy import blocked
from gateway.policy.history import History
from gateway.policy.limits import LimitCode
from gateway.policy.report import Status, with_resolver
from gateway.policy.reports import ListReport, ResolverReport
from gateway.policy.states import Query, Reason, Transfer
from gateway.policy.upstreams import OURS
from gateway.providers.kept import blocked_name
from gateway.services.fetching.block_list_process import rules_of
from gateway.services.fetching.block_lists import BlockListFetcher, Fetched
from gateway.services.fetching.lists import AnswerError
from gateway.services.health.board import describe
from gateway.services.health.metrics import exposition
from gateway.system import process
from tests.configurations import COMPLETE
from tests.lab.process import eventually
from tests.lab.tls import Authority, serve
from tests.unit.test_lists import readers

HOST = "localhost"
LIST = b"# ads\n0.0.0.0 ads.example\n*.bad.example CNAME .\n"
KEPT = b"ads.example CNAME .\n*.bad.example CNAME .\n"
FIRST, SECOND = ip_address("203.0.113.5"), ip_address("203.0.113.6")
LISTED = BlockList("", "lists.example", "/ads")
OTHER = BlockList("", "other.example", "/bad?form=hosts", 8443)


@pytest.fixture(scope="module")
def certificate(trusted: Authority) -> Path:
    """Return the host's certificate from it."""
    return trusted.issue(HOST)


def fetcher(trusted: Authority, *places: Path) -> BlockListFetcher:
    """Return what fetches over loopback."""
    environ = {"SSL_CERT_FILE": str(trusted.certificate)}
    return BlockListFetcher(environ, device="lo", places=places)


def fetch(trusted: Authority, port: int, *places: Path) -> Fetched:
    """Fetch the list at a port. Raises GatewayError."""

    async def run() -> Fetched:
        process.reap_orphans()
        one, listed = fetcher(trusted, *places), BlockList("", HOST, "/ads", port)
        one.open(listed, ip_address("127.0.0.1"))
        return await one.fetch_names(listed)

    return asyncio.run(run())


def test_only_its_rules_are_kept_in_the_first_place_that_takes_them(
    trusted: Authority, certificate: Path, tmp_path: Path
) -> None:
    """Whole or not at all, with a digest; its time is that of the fetch."""
    place = tmp_path / "blocked"
    with serve(certificate, LIST) as port:
        first = fetch(trusted, port, Path("/proc/nothing"), place)
        again = fetch(trusted, port, place)
    path = Path(first.file.path)
    assert path == place / blocked_name(BlockList("", HOST, "/ads", port))
    assert path.read_bytes() == KEPT
    assert first.file.size == len(KEPT)
    assert abs(time.time() - again.file.changed / 1e9) < 60
    assert first.digest == again.digest != b""
    with serve(certificate, LIST) as port, pytest.raises(MissingError, match="mount a volume"):
        fetch(trusted, port, Path("/proc/nothing"))


class Slow(type(Path())):  # type: ignore[misc]
    """A place that does not answer until it is released, such as a network drive."""

    released = threading.Event()

    def is_dir(self) -> bool:
        """Return whether it is a directory, late."""
        self.released.wait(30)
        return bool(super().is_dir())


def test_a_place_that_answers_late_gets_the_list_and_no_other_file(
    trusted: Authority, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the gateway's may have the same number by then, such as one with a password."""
    monkeypatch.setattr("gateway.services.fetching.block_lists.STORE_TIME", 0.05)
    with serve(certificate, LIST) as port, pytest.raises(NetworkError, match="not done after"):
        fetch(trusted, port, Slow(tmp_path) / "blocked")
    with ExitStack() as others:
        for _ in range(30):
            file = others.enter_context(tempfile.TemporaryFile())
            file.write(b"secret")
            file.flush()
        Slow.released.set()
        path = tmp_path / "blocked" / blocked_name(BlockList("", HOST, "/ads", port))
        eventually(path.exists, timeout=10, what="the file")
        assert path.read_bytes() == KEPT


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>\n<p>Sign in\n</html>\n", "no line of it blocks a name"),
        (b"", "no line of it blocks a name"),
        (gzip.compress(LIST), "no line of it blocks a name"),
        (b"ads.example\n<p>\n<p>\n", "most of its lines block no name"),
        (b"0.0.0.0 " + b"x" * 300 + b".example\n", "no line of it blocks a name"),
        (iter([LIST]), "the answer ends early"),
        (b"#" * (33 << 20), "larger than 32 MiB"),
        (b"x\n" * 100_000, "no line of it blocks a name"),
    ],
    ids=["page", "empty", "packed", "page with a name", "long name", "cut off", "large", "lines"],
)
def test_what_is_not_a_list_is_a_reason_and_replaces_nothing(
    trusted: Authority, certificate: Path, tmp_path: Path, body: bytes | Iterator[bytes], why: str
) -> None:
    """And no other address of the host is asked."""
    with serve(certificate, body) as port:
        kept = tmp_path / blocked_name(BlockList("", HOST, "/ads", port))
        kept.write_text("former")
        with pytest.raises(AnswerError, match=why):
            fetch(trusted, port, tmp_path)
    assert kept.read_text() == "former"


def test_a_list_has_a_limit_of_names_and_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it would be taken for the whole."""
    monkeypatch.setattr(blocked, "MOST_NAMES", 2)
    assert rules_of(b"a.example\nb.example\n", "here") == b"a.example CNAME .\nb.example CNAME .\n"
    with pytest.raises(NetworkError, match="more than 2 names: here"):
        rules_of(b"a.example\nb.example\nc.example\n", "here")


@pytest.mark.long
def test_names_that_are_too_long_together_are_refused() -> None:
    """The file is as small as the zone can be."""
    long = ".".join(["x" * 50] * 4)
    with pytest.raises(NetworkError, match="more than 16 MiB"):
        rules_of(b"".join(b"n%d.%b\n" % (it, long.encode()) for it in range(90_000)), "here")


# -- when -----------------------------------------------------------------------------------------


@dataclass
class World:
    """A resolver and the hosts of lists, with a clock that only sleep moves."""

    now: float = 1000.0
    is_up: bool = True
    hangs: bool = False
    fails: dict[object, list[Exception]] = field(default_factory=dict)
    did: list[tuple[float, str]] = field(default_factory=list)
    content: bytes = b"1"
    blocks: bool = True
    has_names: bool = True
    resolver: Address | None = OURS

    @property
    def tools(self) -> Tools:
        """What the lists get."""
        return Tools(
            self, self, lambda: self.is_up, self.block, lambda _: self.has_names, lambda: self.now
        )

    @property
    def done(self) -> list[str]:
        """What was done, in order."""
        return [what for _, what in self.did]

    def open(self, errand: Errand | None = None, server: Address | None = None) -> object:
        """Make a socket: for a question without arguments, else to a host."""
        if errand is None or server is None:
            return Query(FIRST, 40000, 7)
        self._server = server
        return Transfer(server, errand.port, 40001, 0)

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        """Look up names."""
        return dict.fromkeys(names, (FIRST, SECOND))

    async def fetch_names(self, listed: BlockList) -> Fetched:
        """Fetch a list."""
        self.did.append((self.now, f"{listed.host} {self._server}"))
        for of in (listed, self._server):
            if self.fails.get(of):
                raise self.fails[of].pop(0)
        if self.hangs:
            await asyncio.sleep(1000)
        return Fetched(copy_of(listed), self.content)

    async def block(self, files: tuple[BlockFile, ...]) -> bool:
        """Have names blocked."""
        self.did.append((self.now, f"block {len(files)}"))
        return self.blocks


def copy_of(listed: BlockList, age: float = 0.0) -> BlockFile:
    """Return a copy of a list."""
    return BlockFile(f"/config/blocked/{listed.host}", 5, int((time.time() - age) * 1e9))


def run(
    world: World, server: NameServer, until: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> BlockLists:
    """Run the lists of a server until something holds; sleep takes no time."""
    real = asyncio.sleep
    lists = BlockLists(server, world.tools)

    async def sleep(seconds: float) -> None:
        world.now += seconds
        await real(0)

    async def live() -> None:
        task = asyncio.create_task(lists.run())
        for _ in range(20_000):
            if until():
                break
            await real(0)
        else:
            pytest.fail(f"never: {world.did}")
        task.cancel()

    monkeypatch.setattr(block_lists.asyncio, "sleep", sleep)
    asyncio.run(live())
    return lists


def test_each_list_is_fetched_each_period_and_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other; only a list that has changed is read again."""
    world = World()
    server = NameServer(lists=(LISTED, OTHER), update_period=86400)

    def until() -> bool:
        world.content = b"1" if world.now < 150_000 else b"2"
        return len(world.did) > 9

    run(world, server, until, monkeypatch)
    one, two = f"{LISTED.host} {FIRST}", f"{OTHER.host} {FIRST}"
    assert world.done[:6] == [one, "block 1", two, "block 2", one, two]
    assert world.done[6:10] == [one, "block 2", two, "block 2"]
    assert world.did[4][0] == pytest.approx(1000 + 86400, abs=1)


def test_a_young_copy_is_used_and_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is as old as the period, over restarts; with `off` for ever."""
    world, copy = World(), replace(LISTED, kept=copy_of(LISTED, age=80_000))
    server = NameServer(lists=(copy,), update_period=86400)
    lists = run(world, server, lambda: bool(world.did), monkeypatch)
    assert world.did[0][0] == pytest.approx(1000 + 6400, abs=60)
    (known,) = lists.report({copy_of(LISTED).path: 7})
    assert (known.url, known.names, known.problem) == ("https://lists.example/ads", 7, "")
    world = World()
    once = NameServer(lists=(copy, OTHER), update_period=0)
    run(world, once, lambda: world.now > 10_000_000, monkeypatch)
    assert world.done == [f"{OTHER.host} {FIRST}", "block 2"]


def test_nothing_is_fetched_while_the_tunnel_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at each second."""
    world = World(is_up=False)

    def until() -> bool:
        if world.now > 2000:
            world.is_up = True
        return bool(world.did)

    run(world, NameServer(lists=(LISTED,), update_period=60), until, monkeypatch)
    assert world.did[0][0] == pytest.approx(2000, abs=3)


def test_a_failure_is_tried_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the answer is asked of one address only; the copy stays."""
    refused = [AnswerError(f"HTTP 404: {LISTED.url}", LISTED.host) for _ in range(9)]
    world = World(fails={LISTED: list(refused)})
    copy = replace(LISTED, kept=copy_of(LISTED, age=100_000))
    seen: list[ListReport] = []
    server = NameServer(lists=(copy,), update_period=86400)
    lists = BlockLists(server, world.tools)

    def until() -> bool:
        return "block 1" in world.done

    lists = run(world, server, until, monkeypatch)
    times = [at for at, what in world.did if what != "block 1"]
    pauses = [round(after - before) for before, after in pairwise(times)]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert set(world.done) == {f"{LISTED.host} {FIRST}", "block 1"}
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert lists.report({})[0].problem == ""
    assert seen == []


def test_another_address_is_tried_if_one_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """And why none could is reported."""
    unreachable = [NetworkError("connect: refused", str(it)) for it in (FIRST, SECOND)]
    world = World(fails={FIRST: [unreachable[0]]})
    server = NameServer(lists=(LISTED,), update_period=60)
    run(world, server, lambda: len(world.did) > 2, monkeypatch)
    assert world.done == [f"{LISTED.host} {FIRST}", f"{LISTED.host} {SECOND}", "block 1"]
    world = World(fails={FIRST: [unreachable[0]], SECOND: [unreachable[1]]})
    lists = run(world, server, lambda: len(world.did) == 2, monkeypatch)
    assert lists.report({})[0].age is None


def test_names_that_could_not_be_blocked_are_tried_with_the_next_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the list is the same."""
    world = World(blocks=False)
    server = NameServer(lists=(LISTED,), update_period=60)
    run(world, server, lambda: world.done.count("block 1") == 2, monkeypatch)


@pytest.mark.parametrize("has_names", [True, False])
def test_the_same_list_is_blocked_again_if_its_names_are_not(
    monkeypatch: pytest.MonkeyPatch, *, has_names: bool
) -> None:
    """Its copy was out of reach when the resolver has begun again. Control: else it is not read."""
    world, one = World(has_names=has_names), f"{LISTED.host} {FIRST}"
    server = NameServer(lists=(LISTED,), update_period=60)
    run(world, server, lambda: world.done.count(one) == 3, monkeypatch)
    again = [one] if has_names else [one, "block 1"]
    assert world.done[: 2 + len(again)] == [one, "block 1", *again]


def test_a_list_that_drips_is_ended(
    trusted: Authority, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small it is; the process that reads it is gone."""
    monkeypatch.setattr(block_lists, "TIME_LIMIT", 1.5)

    def drops() -> Iterator[bytes]:
        while True:
            yield b"#"
            time.sleep(0.1)

    async def live(port: int) -> tuple[str, list[int]]:
        process.reap_orphans()
        world = World()
        listed = BlockList("", HOST, "/ads", port)

        async def here(names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
            return dict.fromkeys(names, (ip_address("127.0.0.1"),))

        world.ask = here  # type: ignore[method-assign]
        tools = replace(world.tools, hosts=fetcher(trusted, tmp_path))
        lists = BlockLists(NameServer(lists=(listed,), update_period=60), tools)
        task = asyncio.create_task(lists.run())
        async with asyncio.timeout(20):
            while not (problem := lists.report({})[0].problem):  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.05)
        task.cancel()
        return problem, readers()

    with serve(certificate, drops()) as port:
        assert asyncio.run(live(port)) == ("not done after 1.5 s", [])


def test_what_may_be_a_token_in_a_url_is_not_shown() -> None:
    """Not in reports, metrics, the log and `gateway check`; what is harmless is."""
    drawn = "GHSAT0AAAAAACLONGTOKEN7"
    shown = {
        "/a": "/a",
        "/a?form=hosts&x": "/a?form=hosts&x",
        f"/a?form=hosts&id={drawn}": "/a?form=hosts&id=(hidden)",
        "/a?api_key=abc&b=c": "/a?api_key=(hidden)&b=c",
        f"/a?token={drawn}?x={drawn}": "/a?token=(hidden)",
    }
    for target, wanted in shown.items():
        assert BlockList("", "lists.example", target).shown == f"https://lists.example{wanted}"
    listed = BlockList("", "lists.example", f"/a?token={drawn}")
    world = World(fails={FIRST: [NetworkError("no", f"x {listed.url} y") for _ in range(3)]})
    lists = BlockLists(
        NameServer(lists=(listed, replace(listed, target="/a?token=0"))), world.tools
    )
    reports = lists.report({})
    assert {it.url for it in reports} == {"https://lists.example/a?token=(hidden)"}
    status = with_resolver(
        Status(1.0, "connected", healthy=True, reason=Reason.ANSWERS, since=0.0),
        ResolverReport("x", answers=True, lists=reports),
    )
    page = exposition(status, History(), 2.0, healthy=True).decode()
    assert page.count("portcullis_resolver_list_names{") == 1, "no series twice"
    assert drawn not in page
    trial = try_variables(COMPLETE | {"DNS_BLOCK_URLS": listed.url})
    assert trial.loaded
    assert drawn not in explain(trial.loaded)
    refused = try_variables(COMPLETE | {"DNS_BLOCK_URLS": f"https://me:{drawn}@lists.example/a"})
    assert drawn not in str(refused.problems[0])
    assert "a user or a password" in str(refused.problems[0])


# -- what is said ---------------------------------------------------------------------------------


def test_a_failed_list_is_a_limit_and_never_red() -> None:
    """With its reason, the age of its copy and the remedy; `status` and metrics have it too."""
    bad = ListReport(OTHER.url, 0, None, "HTTP 404")
    old = ListReport("https://old.example/", 5, 7300, "silent for 15 s")
    lists = (ListReport(LISTED.url, 12, 35), bad, old)
    green = Status(1.0, "connected", healthy=True, reason=Reason.ANSWERS, since=0.0)
    status = with_resolver(green, ResolverReport("x", answers=True, blocks=17, lists=lists))
    assert status.healthy
    first, second = status.limits
    assert {first.code, second.code} == {LimitCode.NOT_FETCHED}
    assert "https://other.example:8443/bad?form=hosts cannot be fetched (HTTP 404)" in first.text
    assert "nothing of it is blocked" in first.text
    assert "its copy of 2 h ago is used" in second.text
    assert "DNS_BLOCK_URLS" in first.remedy
    text = "\n".join(lines(json.loads(json.dumps(describe(status, 2.0)))))
    assert "blocks https://lists.example/ads: 12 names, fetched 35 s ago\n" in text
    assert f"blocks {OTHER.url}: no copy; not fetched: HTTP 404\n" in text
    page = exposition(status, History(), 2.0, healthy=True).decode()
    assert f'portcullis_resolver_list_names{{url="{LISTED.url}"}} 12.0' in page
    assert f'portcullis_resolver_list_age_seconds{{url="{LISTED.url}"}} 35.0' in page
    assert f'list_age_seconds{{url="{OTHER.url}"}}' not in page
    without = with_resolver(green, ResolverReport("x", answers=True))
    assert "resolver_list" not in exposition(without, History(), 2.0, healthy=True).decode()
