"""Lists of blocked names: what is taken of a hosts file, of an RPZ zone and of anything else."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import NetworkError
from gateway.model.name_server import BlockFile
from gateway.policy import blocked
from gateway.policy.blocked import BLOCKED, EMPTY, PASSED, Blocked
from gateway.services.resolver import block_process, blocking
from gateway.services.resolver.blocking import SUMMARY, Made, make_zone
from gateway.system import process
from tests.lab.process import eventually
from tests.unit.test_process import alive

Replace = Callable[[ModuleType, str], None]


def rules(raw: bytes, *passed: bytes) -> dict[str, str]:
    """Return the rules of a list."""
    found = Blocked(frozenset(passed))
    found.read(raw.splitlines(keepends=True))
    return {name.decode(): answer for name, answer in found.rules.items()}


def test_a_hosts_file_blocks_the_names_that_lead_nowhere() -> None:
    """With comments, CRLF, IPv6 and several names in a line; not those of this or another host."""
    raw = (
        b"# a list\r\n127.0.0.1 localhost localhost.localdomain\r\n::1 ip6-localhost\r\n"
        b"0.0.0.0 0.0.0.0\r\n0.0.0.0 Ads.Example # why\r\n\r\n"
        b"127.0.0.1\tone.example two.example.\r\n"
        b":: six.example\r\n::1 seven.example\r\n192.168.1.9 nas.example\r\n"
        b"0.0.0.0 xn--bcher-kva.example\n"
    )
    names = ["ads.example", "one.example", "two.example", "six.example", "seven.example"]
    assert set(rules(raw)) == {*names, "xn--bcher-kva.example"}
    assert set(rules(raw).values()) == {BLOCKED}


@pytest.mark.parametrize(
    "head",
    [
        b"$TTL 60\n@ SOA a. b. 1 2 3 4 5\n  NS a.\n",
        b"$ORIGIN lists.example.\n@ IN SOA a. b. (1 2\n 3 4 5)\n",
        b"lists.example. 60 IN SOA a. b. 1 2 3 4 5\nlists.example. NS a.\n",
    ],
)
def test_an_rpz_zone_is_read(head: bytes) -> None:
    """Relative names, and absolute ones of its origin; rules about anything else are left out."""
    raw = head + (
        b"ads.example CNAME . ; why\n*.ads.example 60 IN CNAME .\nempty.example CNAME *.\n"
        b"good.example CNAME rpz-passthru.\nother.example CNAME www.evil.example.\n"
        b"32.9.1.168.192.rpz-ip CNAME .\nforeign.example. CNAME .\n"
    )
    assert rules(raw) == {
        "ads.example": BLOCKED,
        "*.ads.example": BLOCKED,
        "empty.example": EMPTY,
        "good.example": PASSED,
    }
    if b"lists.example" in head:
        assert rules(head + b"ads.example.lists.example. CNAME .\n") == {"ads.example": BLOCKED}


def test_names_can_stand_alone() -> None:
    """One on each line, with a dot; a single word is none."""
    assert set(rules(b"ads.example\nword\n.x.example.\n||y.example^\n")) == {
        "ads.example",
        "x.example",
    }


def test_exempt_domains_are_not_blocked_and_neither_by_a_rule_above() -> None:
    """They come first in the zone."""
    assert set(rules(b"a.example\nb.a.example\nxa.example\n", b"a.example")) == {"xa.example"}
    zone = list(Blocked(frozenset((b"a.example",))).zone())
    assert zone[2:] == ["a.example CNAME rpz-passthru.\n", "*.a.example CNAME rpz-passthru.\n"]


def test_a_name_of_many_labels_is_compared_with_few_domains() -> None:
    """A list of such names took longer than the process has, and then no list blocked any."""
    exempt = (b"a.example", b"x.y.z", b"com")
    deep = b"1." * 100
    lines = b"".join(deep + it + b"\n" for it in (*exempt, b"b.example", b"y.z", b"z"))
    assert set(rules(lines, *exempt)) == {
        f"{deep.decode()}{it}" for it in ("b.example", "y.z", "z")
    }


def test_too_many_names_and_too_long_lines_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is cut."""
    monkeypatch.setattr(blocked, "MOST_NAMES", 2)
    assert len(rules(b"a.example\nb.example\nc.example\n")) == 2
    assert rules(b"0.0.0.0 " + b"a.example " * 200) == {}


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_whatever_a_list_has_a_rule_is_one_line_of_the_zone(raw: bytes) -> None:
    """No byte of it can become another record."""
    found = Blocked()
    found.read((b"0.0.0.0 " + raw).splitlines(keepends=True))
    for line in list(found.zone())[2:]:
        name, kind, answer = line.split()
        assert kind == "CNAME"
        assert answer in {BLOCKED, EMPTY, PASSED}
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789_-.*")


def made(tmp_path: Path, *paths: Path | str, passed: tuple[str, ...] = ()) -> tuple[Made, str]:
    """Return what the process says of these files, and the zone."""

    async def run() -> Made:
        process.reap_orphans()
        result = os.open(tmp_path / "zone", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            return await make_zone(tuple(BlockFile(str(it), 0, 0) for it in paths), passed, result)
        finally:
            os.close(result)

    return asyncio.run(run()), (tmp_path / "zone").read_text("ascii")


def test_another_process_makes_one_zone_of_all_lists(tmp_path: Path) -> None:
    """What cannot be read is left out and named; a pipe is not waited for."""
    first, second, pipe = (tmp_path / it for it in ("hosts", "list.rpz", "pipe"))
    first.write_bytes(b"0.0.0.0 ads.example\nnothing of use\n")
    second.write_bytes(b"@ SOA a. b. 1 2 3 4 5\nbad.example CNAME .\nads.example CNAME *.\n")
    os.mkfifo(pipe)
    found, zone = made(tmp_path, first, second, pipe, "/missing", passed=("good.example",))
    assert found.names == 2
    assert f"{pipe}: is not a regular file" in found.left_out
    assert "/missing: No such file" in found.left_out
    assert "1 lines that block no name" in found.left_out
    assert zone.splitlines()[-2:] == ["ads.example CNAME .", "bad.example CNAME ."]


@pytest.mark.parametrize("line", [b"\n", b"a\n", b"# x\n", b"0.0.0.0" + b" a" * 400 + b"\n"])
def test_a_list_of_countless_words_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    """Else there was no time left for the others, and none would block a name."""
    monkeypatch.setattr(blocked, "MOST_WORDS", 1000)
    found = blocked.Blocked()
    assert not found.read([*[line] * 1001, b"0.0.0.0 late.example\n"])
    assert found.read([b"0.0.0.0 good.example\n"])
    assert set(found.rules) - {b"a"} == {b"good.example"}


def test_lists_that_take_long_leave_time_for_the_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the process is ended, and none blocks a name. What is left out is named."""
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(b"0.0.0.0 %s.example\n" % name.encode())
    spent = iter((0.0, block_process.READING_TIME + 1))
    monkeypatch.setattr("time.process_time", lambda: next(spent))
    monkeypatch.setattr(block_process, "give_up_rights", lambda: None)
    with (tmp_path / "zone").open("wb") as zone:
        monkeypatch.setattr(block_process, "RESULT", zone.fileno())
        said = block_process.made([], [str(tmp_path / it) for it in ("first", "second")])
    number, each, left_out = said.split("\n")
    assert (number, each) == ("1", "1 0")
    assert left_out == f"{tmp_path}/second: the lists before it took 15 s"
    assert (tmp_path / "zone").read_text("ascii").endswith("first.example CNAME .\n")


@pytest.mark.long
def test_a_huge_file_is_read_as_far_as_the_limit(tmp_path: Path) -> None:
    """In names and in bytes."""
    many = tmp_path / "many"
    with many.open("wb") as file:
        file.writelines(b"0.0.0.0 n%d.example\n" % it for it in range(blocked.MOST_NAMES + 10))
    found, zone = made(tmp_path, many)
    assert found.names == blocked.MOST_NAMES
    assert f"all after {blocked.MOST_NAMES} names" in found.left_out
    assert zone.count("\n") == blocked.MOST_NAMES + 4
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(block_process.LARGEST)
        file.seek(0, os.SEEK_END)
        file.write(b"\n0.0.0.0 late.example\n")
    found, zone = made(tmp_path, large)
    assert found.names == 0
    assert "after 32 MiB" in found.left_out
    assert "late" not in zone


def test_nothing_that_the_process_has_started_outlives_it(
    tmp_path: Path, replaced_process: Replace
) -> None:
    """As root without CAP_SETUID it could start others, which would keep the file of the zone."""
    replaced_process(
        blocking,
        "import os, subprocess\n"
        "def main():\n"
        "    left = subprocess.Popen(['sleep', '60'])\n"
        f"    os.write({SUMMARY}, b'%d\\n\\n' % left.pid)\n"
        "    os._exit(0)\n",
    )
    found, _ = made(tmp_path, "/missing")
    eventually(lambda: not alive(found.names), timeout=1, what="its end")


def test_a_process_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced_process: Replace
) -> None:
    """And the resolver starts without the lists."""
    monkeypatch.setattr(blocking, "TIME_LIMIT", 0.2)
    replaced_process(blocking, "import time; time.sleep(60)")
    with pytest.raises(NetworkError, match=r"not read after 0\.2 s"):
        made(tmp_path, "/missing")
