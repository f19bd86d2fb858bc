"""`gateway verify --echo` where the one that is asked is not a good web server."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.commands.verify import report

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n192.0.2.1"


@contextmanager
def answering(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """Answer one request with `parts`, with a pause after each; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                try:
                    for part in parts:
                        client.sendall(part)
                        time.sleep(pause)
                except OSError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def test_a_good_one_is_shown() -> None:
    """The control of the others."""
    with answering(GOOD) as url:
        line = report._fetch(url)  # noqa: SLF001 - without a gateway
    assert (line.happened, line.ok) == ("192.0.2.1", True)


@pytest.mark.parametrize(
    "said",
    [
        b"no HTTP at all\r\n\r\n",
        b"",
        b"HTTP/1.1 200 " + bytes(1 << 17),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_a_line_of_the_report(said: bytes) -> None:
    """The other lines follow."""
    with answering(said) as url:
        line = report._fetch(url)  # noqa: SLF001 - as above
    assert line.happened.startswith("no answer: ")
    assert not line.ok


def test_one_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends an octet before it has been silent for long."""
    monkeypatch.setattr(report, "ECHO_TIME", 0.5)
    with answering(*(GOOD[at : at + 1] for at in range(len(GOOD))), pause=0.05) as url:
        line = report._fetch(url)  # noqa: SLF001 - as above
    assert "not done after 0.5 s" in line.happened
    assert not line.ok
