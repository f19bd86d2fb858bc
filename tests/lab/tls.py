"""Certificates of a test's own authority, and a server that has one of them."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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

    def issue(self, host: str) -> Path:
        """Return a file with a key and a certificate for `host`."""
        path = self.directory / f"{host}.pem"
        key, certificate = Path(f"{path}.key"), Path(f"{path}.crt")
        _openssl(
            *(*_NEW, "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={host}"),
            *("-CA", str(self.certificate), "-CAkey", f"{self.certificate}.key"),
            *("-addext", f"subjectAltName=DNS:{host}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
        path.write_text(key.read_text("ascii") + certificate.read_text("ascii"), "ascii")
        return path


def authority(directory: Path, name: str = "lab") -> Authority:
    """Make a certificate authority with files in `directory`."""
    place = directory / name
    place.mkdir()
    made = Authority(place)
    _openssl(
        *(*_NEW, "-keyout", f"{made.certificate}.key", "-out", str(made.certificate)),
        *("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
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

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
