"""Who is the gateway of this namespace, as the kernel lists its sockets."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.errors import MissingError
from gateway.system import claim as sole

LISTENER = "0000000000000000: 00000002 00000000 00010000 0001 01 {inode} {name}"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], socket.socket]]:
    """Claim a name of this test's own, and return a function that binds another name."""
    name = f"\0portcullis-test-{os.getpid()}"
    monkeypatch.setattr(sole, "NAME", name)
    monkeypatch.setattr(sole, "SHOWN_NAME", name.replace("\0", "@").encode())
    monkeypatch.setattr(sole, "could_be_a_gateway", lambda _process: True)
    with ExitStack() as stack:

        def bind(other: str) -> socket.socket:
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(other)
            made.listen()
            return made

        stack.enter_context(sole.claim())
        yield bind


def test_the_holder_is_found_however_many_have_connected(
    named: Callable[[str], socket.socket],
) -> None:
    """The gateway accepts no connection, so a workload can fill the queue."""
    del named
    with ExitStack() as stack:
        refused = 0
        for _ in range(10):
            asking = stack.enter_context(socket.socket(socket.AF_UNIX))
            asking.setblocking(False)
            refused += bool(asking.connect_ex(sole.NAME))
        assert refused, "control: the queue is full"
        assert sole.holder() == os.getpid()
        with pytest.raises(MissingError, match=f"process {os.getpid()} is the gateway"):
            sole.claim()


def test_a_forged_line_names_no_process(named: Callable[[str], socket.socket]) -> None:
    """A name with a line feed looks like two sockets; nothing is sent to who it names."""
    assert sole.holder() == os.getpid(), "control"
    line = LISTENER.format(inode=1, name=sole.SHOWN_NAME.decode())
    named(f"\0x\n{line}")
    listed = Path("/proc/self/net/unix").read_bytes().splitlines()
    assert line.encode() in listed, "control: the line is there"
    assert sole.holder() == 0


def test_a_process_without_the_right_is_not_the_gateway(
    named: Callable[[str], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workload of a pod that shares its processes may have taken the name."""
    del named
    monkeypatch.setattr(sole, "could_be_a_gateway", lambda _process: False)
    assert sole.holder() == 0
