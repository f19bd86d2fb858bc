"""The body of an answer, as `http.client` reads it from bytes in memory."""

import http.client
import io
import socket
import ssl
import threading
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.system import https
from tests.lab.tls import authority

MOST = 200_000


class Channel:
    """What HTTPResponse needs of a socket."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return what is read from it."""
        return io.BufferedReader(cast("Any", io.BytesIO(self._sent)))


def answer_with(head: str, sent: bytes) -> http.client.HTTPResponse:
    """Return an answer of which the head is read."""
    lines = f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode()
    answer = http.client.HTTPResponse(cast("Any", Channel(lines + sent)))
    answer.begin()
    return answer


def body_of(head: str, sent: bytes) -> bytes:
    """Return what is taken of an answer. Raises NetworkError."""
    return https._body(answer_with(head, sent), MOST, "it")  # noqa: SLF001 - without TLS


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks, with the one that ends it."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(it), it) for it in (*parts, b""))


@pytest.mark.parametrize("size", [0, 1, https.PART - 1, https.PART, https.PART + 1, MOST])
def test_a_body_arrives_whole_in_each_form(size: int) -> None:
    """With its length, in chunks, and up to the end."""
    body = bytes(it % 251 for it in range(size))
    assert body_of(f"Content-Length: {size}", body) == body
    assert body_of("Transfer-Encoding: chunked", chunked(body, 9999)) == body
    assert body_of("Connection: close", body) == body


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (f"Content-Length: {MOST + 1}", b""),
        ("Transfer-Encoding: chunked", chunked(bytes(MOST + 1), 9999)),
        ("Connection: close", bytes(MOST + 1)),
    ],
)
def test_one_octet_too_many_is_refused(head: str, sent: bytes) -> None:
    """A length that is too large is refused before anything is read."""
    with pytest.raises(NetworkError, match="larger than 195 KiB"):
        body_of(head, sent)


def test_a_body_that_ends_early_is_refused() -> None:
    """`read` with a limit says nothing of that."""
    with pytest.raises(NetworkError, match="ends early"):
        body_of("Content-Length: 70000", bytes(69_999))


def test_small_chunks_take_little_memory() -> None:
    """Else a list of 24 MiB in chunks of two octets would take more than 600 MiB."""
    size = 1_000_000
    answer = answer_with("Transfer-Encoding: chunked", chunked(bytes(size), 2))
    tracemalloc.start()
    try:
        assert len(https._body(answer, size, "it")) == size  # noqa: SLF001 - as above
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * size


def test_a_chunk_of_less_than_nothing_is_an_error_of_the_host(tmp_path: Path) -> None:
    """A command that fetches without a process for it ends with a sentence, too."""
    made = authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.issue("lists.example"))
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with context.wrap_socket(theirs, server_side=True) as host:
            host.recv(1 << 16)
            host.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc")
            with suppress(OSError):  # the client may have gone
                host.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    request = https.Request(Errand("", "lists.example", "/", 443), MOST)
    with pytest.raises(NetworkError, match=r"is not HTTP: https://lists\.example/"):
        https.get(ours, request, https.trusted_alone(made.certificate))
    thread.join()
