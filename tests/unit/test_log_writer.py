"""The log's writer: nothing waits for the reader, and lost lines are counted."""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.system.log_writer import LineWriter, Stream, without_waiting

F_SETPIPE_SZ = 1031
"""linux/fcntl.h."""

ROOM = 4096

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Yield both ends of a small pipe; the writing one waits, as a container's stdout does.

    The writing end stays open: a thread that has lines left would write them to the file that gets
    its number next. Without the reading end such a write only fails.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, ROOM)
    yield reader, writer
    os.close(reader)


def reported(lines: int) -> str:
    """Return the line about those that were lost."""
    return f"lost {lines}"


def read_all(reader: int, until: str) -> list[str]:
    """Return all lines up to `until`."""
    text = ""
    while not text.endswith(f"{until}\n"):
        text += os.read(reader, 1 << 16).decode()
    return text.splitlines()


def test_lines_come_out_in_order_and_the_end_waits_for_them(pipe: Pipe) -> None:
    """The last one too."""
    reader, end = pipe
    writer = LineWriter(end, reported)
    for number in range(20):
        writer.put(str(number))
    assert writer.finish(5)
    assert read_all(reader, "19") == [str(number) for number in range(20)]
    assert writer.finish(0), "nothing to wait for"


def test_a_reader_that_does_not_read_delays_nothing_and_learns_what_it_missed(pipe: Pipe) -> None:
    """The oldest lines go, and their number is where they were.

    Control: a write to the same pipe would wait.
    """
    reader, end = pipe
    writer = LineWriter(end, reported, most_bytes=10_000)
    began = time.monotonic()
    lines = [f"{number:09}" for number in range(3000)]
    for line in lines:
        writer.put(line)
    assert time.monotonic() - began < 1
    assert not writer.finish(0.2)
    assert os.get_blocking(end), "the descriptor is as others have left it"
    position, kept = 0, 0
    for line in read_all(reader, lines[-1]):
        if line.startswith("lost"):
            position += int(line.split()[1])
        else:
            assert line == lines[position]
            position, kept = position + 1, kept + 1
    assert position == len(lines)
    assert kept < 2000, "control: the queue has a limit"
    assert writer.finish(5)


def test_a_reader_that_has_gone_is_not_an_error(pipe: Pipe) -> None:
    """What was written without a reader counts as lost."""
    reader, end = pipe
    writer = LineWriter(end, reported)
    os.dup2(end, reader)  # the pipe has no reader now, and the number is still ours to close
    for _ in range(3):
        writer.put("without a reader")
    assert writer.finish(5)


def test_a_descriptor_that_another_program_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """Any program that shares the pipe can do that."""
    reader, end = pipe
    os.set_blocking(end, False)
    writer = LineWriter(end, reported)
    lines = [f"{number:09}" for number in range(2000)]
    for line in lines:
        writer.put(line)
    time.sleep(0.2)
    assert read_all(reader, lines[-1]) == lines
    assert writer.finish(5)


def test_a_stream_passes_on_whole_lines(pipe: Pipe) -> None:
    """Text without a line feed waits for it, but not without a limit."""
    reader, end = pipe
    writer = LineWriter(end, reported)
    stream = Stream(writer)
    stream.write("one")
    stream.write(" line\nand ")
    stream.write("another\n")
    assert writer.finish(5)
    assert read_all(reader, "and another") == ["one line", "and another"]
    stream.write("x" * 100_000)
    assert not writer.finish(0.1), "control: longer than the pipe holds"
    assert os.read(reader, 1)


def test_a_stream_without_a_descriptor_stays_as_it_is() -> None:
    """And one that does not wait already."""
    stream = Stream(LineWriter(2, reported))
    assert without_waiting(stream) is stream  # type: ignore[arg-type, comparison-overlap]
    assert without_waiting(sys.stderr) is not None


def test_lines_are_written_at_once_where_no_thread_can_be_started(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the pipe takes without waiting; the others follow when there is room."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reader, end = pipe
    writer = LineWriter(end, reported)
    writer.put("first")
    assert read_all(reader, "first") == ["first"]
    long = "x" * (ROOM - 1)
    for line in (long, "second"):
        writer.put(line)
    assert not writer.finish(0), "the pipe is full"
    assert read_all(reader, long) == [long]
    assert writer.finish(0)
    assert read_all(reader, "second") == ["second"]
