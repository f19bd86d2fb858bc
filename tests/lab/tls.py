"""Certificates of a test's own authority, and a server that has one of them."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.lab.tls_server import Server

_NEW = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
    *("-days", "2"),
)


ENDLESS = 1 << 20
"""The length that a body in parts is said to have."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority; `certificate` is what a client has to trust."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """The file with its certificate."""
        return self.directory / "authority.pem"

    def issue(self, host: str, *others: str, alternative: bool = True) -> Path:
        """Return a file with a key and a certificate for `host` and for `others`.

        Without `alternative`, the name is the common name alone, as old authorities have it.
        """
        names = ",".join(f"DNS:{name}" for name in (host, *others))
        path = self.directory / f"{host}.pem"
        key, certificate = Path(f"{path}.key"), Path(f"{path}.crt")
        _openssl(
            *(*_NEW, "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={host}"),
            *("-CA", str(self.certificate), "-CAkey", f"{self.certificate}.key"),
            *(("-addext", f"subjectAltName={names}") if alternative else ()),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
        path.write_text(key.read_text("ascii") + certificate.read_text("ascii"), "ascii")
        return path


def authority(directory: Path, name: str = "lab", *, strict: bool = True) -> Authority:
    """Make a certificate authority with files in `directory`.

    One that is not `strict` lacks what RFC 5280 asks for, as some old ones do.
    """
    critical = "critical," if strict else ""
    place = directory / name
    place.mkdir()
    made = Authority(place)
    _openssl(
        *(*_NEW, "-keyout", f"{made.certificate}.key", "-out", str(made.certificate)),
        *("-subj", f"/CN={name}", "-addext", f"basicConstraints={critical}CA:TRUE"),
        *(("-addext", "keyUsage=critical,keyCertSign,cRLSign") if strict else ()),
    )
    return made


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@contextmanager
def serve(certificate: Path, body: bytes | Iterator[bytes]) -> Iterator[int]:
    """Answer every GET over TLS on loopback with `body`, or its parts; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            length = len(body) if isinstance(body, bytes) else ENDLESS
            self.send_header("Content-Length", str(length))
            self.end_headers()
            for part in [body] if isinstance(body, bytes) else body:
                self.wfile.write(part)

        def log_message(self, *_: Any) -> None:
            return

    with _running(Server(("127.0.0.1", 0), Handler, certificate)) as port:
        yield port


class Answers:
    """What a host is to answer, in order, as status and body, and the requests that it had.

    A request is its method, its target and its body. The body of an answer is its reason, too.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[tuple[str, str, str]] = []
        self._answers: list[tuple[int, str]] = []

    @property
    def answers(self) -> list[tuple[int, str]]:
        """What is to be answered next."""
        return self._answers

    @answers.setter
    def answers(self, wanted: list[tuple[int, str]]) -> None:
        self._answers, self.requests = list(wanted), []


@contextmanager
def answering(certificate: Path) -> Iterator[Answers]:
    """Answer over TLS on loopback as the yielded value says, until the end."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            answers.requests.append((self.command, self.path, body))
            status, text = answers.answers.pop(0)
            reason = "".join(c for c in text[:80] if c.isascii() and c.isprintable())
            self.send_response(status, reason)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: Any) -> None:
            return

    with _running(Server(("127.0.0.1", 0), Handler, certificate)) as answers.port:
        yield answers


@contextmanager
def _running(server: Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
