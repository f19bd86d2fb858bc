"""The configuration is read by a child: the same result, every error, and no end without one."""

import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import ConfigError, ProcessError, StoppedError, is_shortage
from gateway.settings import assemble, reading
from tests.configurations import COMPLETE

PATIENCE = 30.0


def never() -> bool:
    """Return False: a stop was not asked for."""
    return False


def loads_like(load: Callable[[Mapping[str, str]], Any], patch: pytest.MonkeyPatch) -> None:
    """Let the child call `load`: it is a fork, so it has what is replaced here."""
    patch.setattr(assemble, "load", load)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail where a test leaves a child behind, dead or alive."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_child_hands_over_what_loading_returns() -> None:
    """Secrets too, and notices."""
    environ = {**COMPLETE, "DNS_ADDRESS": ""}
    read = reading.Reading(environ).result(never)
    loaded = assemble.load(environ)
    assert read.config == loaded.config
    assert read.notices == loaded.notices
    assert read.notices
    assert read.config.tunnels[0].private_key.reveal() == COMPLETE["WIREGUARD_PRIVATE_KEY"]


def test_it_is_read_however_many_descriptors_are_open() -> None:
    """The queues of the links are held when a reading is tried again."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    held: list[int] = []
    try:
        while not held or held[-1] < 1024:
            held.append(os.open(os.devnull, os.O_RDONLY))
        assert reading.Reading(COMPLETE).result(never).config == assemble.load(COMPLETE).config
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_wrong_configuration_is_the_same_error() -> None:
    """Every problem and every notice."""
    environ = {**COMPLETE, "WIREGUARD_MTU": "9", "LOG_LEVEL": "loud"}
    with pytest.raises(ConfigError) as here:
        assemble.load(environ)
    with pytest.raises(ConfigError) as there:
        reading.Reading(environ).result(never)
    assert there.value.problems == here.value.problems
    assert there.value.notices == here.value.notices
    assert len(here.value.problems) == 2


def test_a_shortage_in_the_child_is_one_here_and_the_next_call_reads_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway tries again, and does not end."""
    load = assemble.load

    def scarce(environ: Mapping[str, str]) -> Any:
        raise OSError(errno.EMFILE, "Too many open files", str(environ))

    loads_like(scarce, monkeypatch)
    started = reading.Reading(COMPLETE)
    with pytest.raises(ProcessError) as caught:
        started.result(never)
    assert is_shortage(caught.value)
    loads_like(load, monkeypatch)
    assert started.result(never).config == load(COMPLETE).config


def test_a_fork_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails again in `result`, which raises it; descriptors are not lost."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        started = reading.Reading(COMPLETE)
        with pytest.raises(BlockingIOError):
            started.result(never)
    assert started.result(never).config
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_unexpected_error_shows_its_place_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of an error that is not ours may contain a key."""

    def broken(environ: Mapping[str, str]) -> Any:
        raise KeyError(environ["WIREGUARD_PRIVATE_KEY"])

    loads_like(broken, monkeypatch)
    with pytest.raises(ProcessError, match=r"unexpected KeyError in .*, line \d+") as caught:
        reading.Reading(COMPLETE).result(never)
    assert COMPLETE["WIREGUARD_PRIVATE_KEY"] not in str(caught.value)
    assert not is_shortage(caught.value)


@pytest.mark.parametrize("early", [True, False], ids=["before", "while it writes"])
def test_a_child_that_is_killed_is_a_shortage_and_the_next_call_reads_again(
    monkeypatch: pytest.MonkeyPatch, *, early: bool
) -> None:
    """As by the kernel when memory runs out: also where it has written a part of the outcome."""

    def killed(environ: Mapping[str, str]) -> Any:
        del environ
        die = Timer(0.0 if early else 0.3, os.kill, (os.getpid(), signal.SIGKILL))
        die.start()
        if early:
            die.join(PATIENCE)
        return SimpleNamespace(config=bytes(1 << 20), notices=())  # more than a pipe holds

    with monkeypatch.context() as patch:
        loads_like(killed, patch)
        started = reading.Reading(COMPLETE)
        time.sleep(0.0 if early else 0.6)
        with pytest.raises(ProcessError, match="the child ended with -9") as caught:
            started.result(never)
    assert is_shortage(caught.value)
    assert started.result(never).config


def test_a_stop_ends_the_wait_for_a_file_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe in place of a file blocks who opens it; the child ends with the wait."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loads_like(lambda _environ: fifo.read_text("ascii"), monkeypatch)
    started = reading.Reading(COMPLETE)
    with pytest.raises(StoppedError):
        started.result(lambda: True)
    assert os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) == -signal.SIGKILL
