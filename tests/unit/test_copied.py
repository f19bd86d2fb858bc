"""Files that are replaced by copies, also where two gateways share a directory."""

import os
import threading
import time
from pathlib import Path

from gateway.system.copied import OLD, replace_with_copy

SIZE = 3 << 20


def memory(content: bytes) -> int:
    """Return an open file with `content`."""
    number = os.memfd_create("content")
    os.write(number, content)
    return number


def test_two_gateways_that_write_the_same_file_leave_a_whole_one(tmp_path: Path) -> None:
    """Neither fails, and neither puts a half copy of the other's in place."""
    problems: list[OSError] = []
    seen: set[bytes] = set()
    over = threading.Event()

    def write(letter: bytes) -> None:
        number = memory(letter * SIZE)
        for _ in range(12):
            try:
                replace_with_copy(tmp_path / "servers", "list", number)
            except OSError as err:
                problems.append(err)
        os.close(number)

    def look() -> None:
        file = tmp_path / "servers" / "list"
        while not over.is_set():
            if file.exists():
                content = file.read_bytes()
                seen.add(content if len(content) != SIZE else content[:1])

    looking = threading.Thread(target=look)
    looking.start()
    writers = [threading.Thread(target=write, args=(it,)) for it in (b"a", b"b")]
    for it in writers:
        it.start()
    for it in writers:
        it.join()
    over.set()
    looking.join()
    assert problems == []
    assert seen <= {b"a", b"b"}
    assert [it.name for it in (tmp_path / "servers").iterdir()] == ["list"]


def test_what_a_gateway_has_not_completed_is_removed_later(tmp_path: Path) -> None:
    """What another one may be writing now is left alone, and so is every other file."""
    names = (".list.new", ".list.0011aabb.new", ".list.ffffffff.new", ".other.0011aabb.new")
    for name in names:
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, time.time() - OLD - 1))
    os.utime(tmp_path / ".list.ffffffff.new")
    number = memory(b"whole")
    replace_with_copy(tmp_path, "list", number, is_secret=True)
    os.close(number)
    left = {it.name for it in tmp_path.iterdir()}
    assert left == {"list", ".list.ffffffff.new", ".other.0011aabb.new"}
    assert (tmp_path / "list").stat().st_mode & 0o777 == 0o600
