"""Requests to a torrent client's web interface: real connections on loopback."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.model.port_client import ClientUrl
from gateway.policy.port_client import Outcome
from gateway.services.port_client.http import LARGEST, MOST_COOKIES, Trouble, Web
from tests.lab.tls import authority

HERE = ip_address("127.0.0.1")


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Server:
    """Answers one request after the other with `answers`; closes after those that end with !."""

    def __init__(self, answers: list[bytes], context: ssl.SSLContext | None = None) -> None:
        self._answers = answers
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._listener.close()

    def _serve(self) -> None:
        while self._answers:
            try:
                channel, _ = self._listener.accept()
                self.connections += 1
                if self._context:
                    channel = self._context.wrap_socket(channel, server_side=True)
                with channel:
                    self._answer(channel)
            except OSError:
                continue

    def _answer(self, channel: socket.socket) -> None:
        while self._answers:
            data = b""
            while b"\r\n\r\n" not in data:
                part = channel.recv(4096)
                if not part:
                    return
                data += part
            self.requests.append(data)
            said = self._answers.pop(0)
            channel.sendall(said.removesuffix(b"!"))
            if said.endswith(b"!"):
                return


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    """Yield what makes something that asks a server; it hangs up in the end."""
    made: list[Web] = []

    def to(server: Server, path: str = "", *, tls: bool = False) -> Web:
        url = ClientUrl(HERE, server.port, path, tls)
        made.append(Web(url, lambda: socket.create_connection(("127.0.0.1", server.port))))
        return made[-1]

    yield to
    for it in made:
        it.hang_up()


@pytest.fixture
def serving() -> Iterator[list[Server]]:
    """Yield a list of servers that are closed in the end."""
    found: list[Server] = []
    yield found
    for server in found:
        server.close()


def test_a_connection_is_used_again_and_replaced_when_the_client_has_closed_it(
    serving: list[Server], web: Callable[..., Web]
) -> None:
    """Without an error: clients close what was idle for long."""
    good = answer(b"{}")
    server = Server([good, good + b"!", good])
    serving.append(server)
    asked = web(server, "base")
    for _ in range(3):
        assert asked.get("target").object() == {}
    assert server.connections == 2
    assert all(it.startswith(b"GET /base/target HTTP/1.1\r\n") for it in server.requests)
    assert b"Host: 127.0.0.1:" in server.requests[0]


def test_cookies_come_back_but_not_endlessly_many(
    serving: list[Server], web: Callable[..., Web]
) -> None:
    """And none that would end its line."""
    many = [f"Set-Cookie: c{i}=v{i}; HttpOnly; path=/" for i in range(MOST_COOKIES + 5)]
    long = "Set-Cookie: long=" + "x" * 5000
    server = Server([answer(b"", *many, long), answer(b"", "Set-Cookie: c0=other"), answer(b"")])
    serving.append(server)
    asked = web(server)
    for _ in range(3):
        asked.get("x")
    assert b"Cookie" not in server.requests[0]
    assert server.requests[1].count(b"=v") == MOST_COOKIES
    assert b"long" not in server.requests[1]
    assert b"c0=other" in server.requests[2]


@pytest.mark.parametrize(
    ("said", "outcome", "detail"),
    [
        (answer(b"x" * (LARGEST + 1)), Outcome.ODD, "larger than 256 KiB"),
        (answer(b"", "Location: /", status="301 Moved"), Outcome.ODD, "HTTP 301, a redirection"),
        (b"SSH-2.0-OpenSSH\r\n!", Outcome.ODD, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n!", Outcome.ODD, "not HTTP"),
        (b"!", Outcome.ABSENT, ""),
    ],
)
def test_an_answer_that_is_not_to_be_used(
    serving: list[Server], web: Callable[..., Web], said: bytes, outcome: Outcome, detail: str
) -> None:
    """With the reason."""
    server = Server([said])
    serving.append(server)
    with pytest.raises(Trouble) as caught:
        web(server).get("x")
    assert caught.value.outcome is outcome
    assert detail in caught.value.detail


def test_one_that_is_not_there() -> None:
    """As the kernel says it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    asked = Web(ClientUrl(HERE, port), lambda: socket.create_connection(("127.0.0.1", port)))
    with pytest.raises(Trouble) as caught:
        asked.get("x")
    assert (caught.value.outcome, caught.value.detail) == (Outcome.ABSENT, "Connection refused")


def test_https_on_loopback_needs_no_certificate_that_others_trust(
    serving: list[Server], web: Callable[..., Web], tmp_path: Path
) -> None:
    """QBittorrent makes none by itself, so people have their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority(tmp_path).issue("elsewhere.example"))
    server = Server([answer(b"{}")], context)
    serving.append(server)
    assert web(server, tls=True).get("x").object() == {}
    plain = Server([answer(b"{}")])
    serving.append(plain)
    with pytest.raises(Trouble) as caught:
        web(plain, tls=True).get("x")
    assert caught.value.outcome is Outcome.ABSENT
