"""An HTTP server over TLS that writes nothing by itself: the frame of every such server here.

Standard library only; programs that are copied elsewhere import it from next to them.
"""

import json
import socket
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection; `wanted` is what the program was started with."""

    protocol_version = "HTTP/1.1"
    server: Any

    @property
    def wanted(self) -> dict[str, Any]:
        """The object of the command line."""
        found: dict[str, Any] = self.server.wanted
        return found

    def asked(self) -> tuple[str, dict[str, str]]:
        """Return the path and the query."""
        url = urlsplit(self.path)
        return url.path, {name: values[0] for name, values in parse_qs(url.query).items()}

    def note(self, **request: Any) -> None:
        """Write a line of JSON to standard output, for the lab."""
        print(json.dumps(request), flush=True)  # noqa: T201 - it is what the lab reads

    def begin(self, code: int, length: int, **headers: str) -> None:
        """Send the head of an answer."""
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, body: bytes) -> None:
        """Send a whole answer."""
        self.begin(200, len(body))
        self.wfile.write(body)

    def answer_json(self, document: dict[str, Any]) -> None:
        """Send a whole answer in JSON."""
        self.answer(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """Serves over TLS with a certificate, a file with the key too."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], certificate: Path
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        self.wanted: dict[str, Any] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, *_: object) -> None:
        """Write nothing: a client that hangs up is what some tests are about."""


def run(handler: type[Handler]) -> None:
    """Serve for ever, with `address`, `port` and `certificate` of the JSON in the arguments."""
    wanted = json.loads(sys.argv[1])
    server = Server((wanted["address"], wanted["port"]), handler, wanted["certificate"])
    server.wanted = wanted
    print("ready", flush=True)  # noqa: T201 - it is what the lab waits for
    server.serve_forever()
