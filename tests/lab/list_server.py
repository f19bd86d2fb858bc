"""Plays a provider: serves a list of servers over TLS, well or badly. A program of its own.

    python list_server.py JSON

JSON has `address`, `port`, `certificate` (a file with the key too), `body` (a file), and `manner`,
how it is served; see MANNERS. With `account`, a POST of that form is a login: it gets `token`, and
any other form `refusal`, an HTTP status, with that form in its reason. Each request is a line of
JSON on standard output.
"""

import socket
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tls_server  # type: ignore[import-not-found]  # found next to this file

HUGE = 64 << 20
GIGABYTE = 1 << 30
DRIP = 0.2
STALL = 600.0


class Provider(tls_server.Handler):  # type: ignore[misc]
    """Answers each GET in the manner that the server has."""

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        """Answer one request."""
        self.note(
            at=time.monotonic(),
            client=self.client_address[0],
            target=self.path,
            agent=self.headers["User-Agent"],
        )
        body = Path(self.wanted["body"]).read_bytes()
        MANNERS[self.wanted["manner"]](self, body)

    def do_POST(self) -> None:  # noqa: N802 - as above
        """Log in."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.note(at=time.monotonic(), login=form)
        wanted = self.wanted
        if form != wanted.get("account"):
            self.send_response(wanted.get("refusal", 401), f"no {form}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.answer_json({"token": wanted["token"]})


def _well(one: Provider, body: bytes) -> None:
    one.answer(body)


def _refused(one: Provider, _body: bytes) -> None:
    one.begin(503, 0)


def _redirected(one: Provider, _body: bytes) -> None:
    one.begin(302, 0, Location="https://elsewhere.example/")


def _downgraded(one: Provider, _body: bytes) -> None:
    one.begin(301, 0, Location="http://lists.example/plain")


def _absent(one: Provider, _body: bytes) -> None:
    one.begin(404, 0)


def _bomb(one: Provider, _body: bytes) -> None:
    packed = zlib.compressobj(wbits=31)
    text = b"".join(packed.compress(bytes(1 << 20)) for _ in range(GIGABYTE >> 20)) + packed.flush()
    one.begin(200, len(text), **{"Content-Encoding": "gzip"})
    one.wfile.write(text)


def _gigabyte(one: Provider, _body: bytes) -> None:
    one.begin(200, GIGABYTE)
    while True:
        one.wfile.write(b"ads.example\n" * 4096)


def _endless(one: Provider, _body: bytes) -> None:
    one.send_response(200)
    one.send_header("Transfer-Encoding", "chunked")
    one.end_headers()
    part = b"0.0.0.0 ads.example\n" * 2048
    while True:
        one.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))


def _huge(one: Provider, _body: bytes) -> None:
    one.begin(200, HUGE)
    while True:
        one.wfile.write(b" " * (1 << 16))


def _truncated(one: Provider, body: bytes) -> None:
    one.begin(200, len(body))
    one.wfile.write(body[: len(body) // 2])
    one.wfile.flush()
    one.connection.shutdown(socket.SHUT_RDWR)


def _garbage(one: Provider, _body: bytes) -> None:
    text = b"<html>\x1b[2Jsign in</html>"
    one.answer(text)


def _deep(one: Provider, _body: bytes) -> None:
    text = b"[" * 1_000_000
    one.answer(text)


def _slow(one: Provider, body: bytes) -> None:
    one.begin(200, len(body))
    for octet in body:
        one.wfile.write(bytes([octet]))
        time.sleep(DRIP)


def _stalled(one: Provider, body: bytes) -> None:
    one.begin(200, len(body))
    time.sleep(STALL)


MANNERS: dict[str, Callable[[Provider, bytes], None]] = {
    "well": _well,
    "refused": _refused,
    "redirected": _redirected,
    "downgraded": _downgraded,
    "absent": _absent,
    "bomb": _bomb,
    "gigabyte": _gigabyte,
    "endless": _endless,
    "huge": _huge,
    "truncated": _truncated,
    "garbage": _garbage,
    "deep": _deep,
    "slow": _slow,
    "stalled": _stalled,
}


if __name__ == "__main__":
    tls_server.run(Provider)
