"""Plays a VPN server that takes keys over TLS, and gives them to WireGuard. A program of its own.

    python key_server.py JSON

JSON has `address`, `port`, `certificate` (a file with the key too), `token`, `interface`, the
WireGuard interface, `client`, the address that a key gets there, `answer`, what is answered with
`peer_ip` added, and `manner`: `well`, `stalled` (nothing is answered), `odd` (`answer` as it is) or
`huge`. Each request is a line of JSON on standard output.
"""

import json
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STALL = 600.0
HUGE = 64 << 20


class KeyServer(BaseHTTPRequestHandler):
    """Answers `GET /addKey?pt=TOKEN&pubkey=KEY`."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        """Take a key."""
        wanted = self.server.wanted
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        request = {"at": time.monotonic(), "path": url.path, **query}
        print(json.dumps(request), flush=True)  # noqa: T201 - it is what the lab reads
        if wanted["manner"] == "stalled":
            time.sleep(STALL)
        if wanted["manner"] == "huge":
            self._answer(b" " * HUGE)
        elif wanted["manner"] == "odd":
            self._answer(json.dumps(wanted["answer"]).encode())
        elif query.get("pt") != wanted["token"]:
            self._answer(json.dumps({"status": "ERROR", "message": self.path}).encode())
        else:
            allowed = f"{wanted['client']}/32"
            subprocess.run(
                ["wg", "set", wanted["interface"], "peer", query["pubkey"],
                 "preshared-key", "/dev/null", "allowed-ips", allowed],
                check=True,
            )  # fmt: skip
            answer = {**wanted["answer"], "peer_ip": wanted["client"]}
            self._answer(json.dumps(answer).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Write nothing: a client that hangs up is what some tests are about."""


def main() -> None:
    """Serve for ever."""
    wanted = json.loads(sys.argv[1])
    server = _Server((wanted["address"], wanted["port"]), KeyServer)
    server.wanted = wanted  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(wanted["certificate"])
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    print("ready", flush=True)  # noqa: T201 - it is what the lab waits for
    server.serve_forever()


if __name__ == "__main__":
    main()
