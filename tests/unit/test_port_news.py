"""The status file and the commands: what they get, when, and what a workload can do to the file."""

import asyncio
import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.model.forwarding import ForwarderKind, Forwarding
from gateway.services.ports import news as port_news
from gateway.services.ports.file import write_ports
from gateway.services.ports.news import PortNews, filled_in


def test_the_file_has_one_port_in_a_line_and_is_emptied(tmp_path: Path) -> None:
    """In place, so that tools which watch it see each change; everybody may read it."""
    file = tmp_path / "gluetun" / "forwarded_port"
    write_ports(str(file), ())
    assert not file.exists()
    write_ports(str(file), (41000, 9))
    inode = file.stat().st_ino
    assert file.read_text("ascii") == "41000\n9"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    write_ports(str(file), (42000,))
    assert file.read_text("ascii") == "42000"
    write_ports(str(file), ())
    assert (file.read_bytes(), file.stat().st_ino) == (b"", inode)


def test_what_it_holds_already_is_not_written_again(tmp_path: Path) -> None:
    """A tool that watches it is not woken for nothing."""
    file = tmp_path / "port"
    write_ports(str(file), (41000,))
    os.utime(file, ns=(1, 1))
    write_ports(str(file), (41000,))
    assert file.stat().st_mtime_ns == 1


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A workload that shares the directory could have any file of the gateway overwritten."""
    target = tmp_path / "passwd"
    target.write_text("root", "ascii")
    (tmp_path / "port").symlink_to(target)
    (tmp_path / "away").symlink_to(tmp_path)
    (tmp_path / "hard").hardlink_to(target)
    for path in ("port", "away/passwd", "hard"):
        with pytest.raises(OSError):  # noqa: PT011 - of two kinds
            write_ports(str(tmp_path / path), (1,))
    assert target.read_text("ascii") == "root"


def test_a_pipe_or_a_directory_is_not_waited_for(tmp_path: Path) -> None:
    """It is an error, at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError):  # noqa: PT011 - of two kinds
            write_ports(str(tmp_path / name), (1,))


def test_templates_become_ports() -> None:
    """As other images write them."""
    command = ("say", "{{PORTS}}", "a{{PORT}}b", "{{ PORT }}", "{{PORTS}}{{PORT}}")
    assert filled_in(command, (41000, 42000)) == (
        *("say", "41000,42000", "a41000b", "{{ PORT }}", "41000,4200041000"),
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)


class News:
    """News with commands that write what they are given into a file."""

    def __init__(self, tmp_path: Path) -> None:
        self.status, self.said = tmp_path / "status", tmp_path / "said"
        self.said.touch()
        self.program = tmp_path / "say"
        self.program.write_text(f'#!/bin/sh\necho "$@" >> {self.said}\n', "ascii")
        self.program.chmod(0o755)
        self.news = PortNews(
            Forwarding(
                ForwarderKind.NATPMP,
                status_file=str(self.status),
                up_command=(str(self.program), "up", "{{PORTS}}"),
                down_command=(str(self.program), "down", "{{PORTS}}"),
            )
        )

    @property
    def lines(self) -> list[str]:
        """What the commands were given."""
        return self.said.read_text("ascii").splitlines()

    async def wait(self, *lines: str) -> None:
        """Wait until they have been given that."""
        await until(lambda: self.lines == [*lines])


def during(tmp_path: Path, work: Callable[[News], Awaitable[None]]) -> News:
    """Run news while `work` lasts, and end them."""

    async def main() -> News:
        news = News(tmp_path)
        running = asyncio.create_task(news.news.run())
        await work(news)
        await news.news.finish(running)
        return news

    return asyncio.run(main())


def test_commands_run_for_a_new_port_and_for_its_end(tmp_path: Path) -> None:
    """For a changed port, first the end of the former one. At the end the last one ends."""

    async def work(news: News) -> None:
        news.news.take((41000,))
        await news.wait("up 41000")
        assert news.status.read_text("ascii") == "41000"
        news.news.take((42000, 43000))
        await news.wait("up 41000", "down 41000", "up 42000,43000")
        assert news.status.read_text("ascii") == "42000\n43000"

    news = during(tmp_path, work)
    assert news.lines[-1] == "down 42000,43000"
    assert news.status.read_bytes() == b""


def test_what_an_earlier_run_has_left_is_removed(tmp_path: Path) -> None:
    """Without a port the file is emptied at the start, and no command runs."""
    (tmp_path / "status").write_text("40000", "ascii")

    async def work(news: News) -> None:
        await until(lambda: not news.status.read_bytes())

    assert during(tmp_path, work).lines == []


def test_ports_that_come_and_go_faster_than_commands_build_up_no_queue(tmp_path: Path) -> None:
    """Only the last ones count."""

    async def work(news: News) -> None:
        news.program.write_text(
            news.program.read_text("ascii").replace("\n", "\nsleep 0.3\n", 1), "ascii"
        )
        news.news.take((1,))
        await asyncio.sleep(0.1)
        for port in range(2, 50):
            news.news.take((port,))
        await news.wait("up 1", "down 1", "up 49")

    during(tmp_path, work)


def test_a_command_that_hangs_does_not_delay_the_end_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed."""
    monkeypatch.setattr(port_news, "LAST_TIME_LIMIT", 0.3)

    async def work(news: News) -> None:
        script = f"#!/bin/sh\necho $$ >> {news.said}\nsleep 60 &\necho $! >> {news.said}\nwait\n"
        news.program.write_text(script, "ascii")
        news.news.take((1,))
        await until(lambda: len(news.lines) > 1)

    began_at = time.monotonic()
    started = during(tmp_path, work).lines
    assert time.monotonic() - began_at < 5
    assert not [pid for pid in started if Path("/proc", pid, "cwd").exists()], "and its children"


def test_a_file_that_cannot_be_written_is_a_problem_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands run all the same."""
    monkeypatch.setattr(port_news, "FILE_AGAIN", 0.05)
    (tmp_path / "status").mkdir()

    async def work(news: News) -> None:
        news.news.take((41000,))
        await news.wait("up 41000")
        assert news.news.file_problem
        news.status.rmdir()
        await until(lambda: not news.news.file_problem)
        assert news.status.read_text("ascii") == "41000"

    during(tmp_path, work)
