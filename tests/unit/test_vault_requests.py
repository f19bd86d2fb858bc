"""What a gateway does with a vault that does not answer: it is a shortage, and ends some time."""

import errno
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import GatewayError, MissingError, NetworkError, is_shortage
from gateway.system import vault as module
from gateway.system.vault import VaultNetns
from tests.lab.process import eventually

ANSWER = struct.pack("i", 0)


class Listener:
    """A stand-in for the process of a vault that does as a test says, for one connection each."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(dir="/tmp")) / "s"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.place))
        self._listener.listen(1)
        self._answering = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()
        self.hangs_up = False

    def answer(self, *, whether: bool = True) -> None:
        """Answer from now on, or let requests and connections wait."""
        (self._answering.set if whether else self._answering.clear)()

    def _serve(self) -> None:
        while True:
            self._answering.wait()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(
                threading.Thread(target=self._follow, args=(connection,), daemon=True)
            )
            self._threads[-1].start()

    def _follow(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(5000):
                self._answering.wait()
                if self.hangs_up:
                    self.hangs_up = False
                    return
                try:
                    socket.send_fds(connection, [ANSWER], [connection.fileno()])
                except OSError:
                    return

    def close(self) -> None:
        """Answer no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.place.unlink()
        self.place.parent.rmdir()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Return one that answers; a gateway waits for 0.5 s at most."""
    monkeypatch.setattr(module, "ANSWER_TIME", 0.5)
    monkeypatch.setattr(module, "SILENT_FOR", 0.0)
    made = Listener()
    made.answer()
    yield made
    made.answer()
    made.close()


def ask(vault: VaultNetns) -> bool:
    """Return whether there is an answer, and check that none is a shortage."""
    try:
        os.close(vault.descriptor())
    except OSError as err:
        if not is_shortage(err):
            raise
        return False
    return True


def test_a_vault_that_was_halted_is_used_again(listener: Listener) -> None:
    """Even if so many connections wait that no other one can be made. Control: it answered."""
    vault = VaultNetns(listener.place)
    assert ask(vault)
    listener.answer(whether=False)
    assert [ask(vault) for _ in range(5)] == [False] * 5
    listener.answer()
    eventually(lambda: ask(vault), timeout=5, what="an answer")
    assert ask(vault)
    vault.close()


def test_a_connection_that_is_lost_is_made_again(listener: Listener) -> None:
    """The next request has an answer."""
    vault = VaultNetns(listener.place)
    listener.hangs_up = True
    assert [ask(vault) for _ in range(3)] == [False, True, True]
    vault.close()


def test_a_vault_that_does_not_answer_is_waited_for_once(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For some seconds, each request fails at once: it is not even made."""
    vault = VaultNetns(listener.place)
    monkeypatch.setattr(module, "SILENT_FOR", 60.0)
    listener.answer(whether=False)
    assert not ask(vault)
    listener.answer()
    assert not ask(vault)
    vault.close()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python\0-m\0gateway\0vault\0", NetworkError),
        ("python\0-I\0/opt/vault_process.py\0place\0", MissingError),
        ("python\0-m\0gateway\0", None),
        ("/pause\0", None),
    ],
)
def test_a_vault_that_may_not_be_reached_may_still_be_about_to_drop_capabilities(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    expected: type[GatewayError] | None,
) -> None:
    """Then it is a shortage; without a vault, nothing is asked."""
    process = tmp_path / "cmdline"
    process.write_text(command, "ascii")

    def refused(_place: Path) -> VaultNetns:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "VaultNetns", refused)
    if expected is None:
        assert module.find(process, tmp_path) is None
        return
    with pytest.raises(expected) as caught:
        module.find(process, tmp_path)
    assert is_shortage(caught.value) == (expected is NetworkError)


def test_whether_there_is_a_vault_is_not_known_in_a_shortage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a descriptor for the question. Control: what cannot be read at all is none."""
    assert module.find(tmp_path / "nothing") is None

    def short(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", short)
    with pytest.raises(NetworkError) as caught:
        module.find()
    assert is_shortage(caught.value)
