"""Signs ports and forwards them, as Private Internet Access does. A program of its own.

    python port_signer.py JSON

JSON has `address`, `port`, `certificate` (a file with the key too), `exit`, the address whose ports
are forwarded, `interface`, by which clients come, and `settings`, a file with a JSON object that is
read for each request:

    token    who has it gets a port; no other does
    port     the port that is signed
    expires  when it ends, in seconds since 1970
    also     a list of ports that are forwarded too, once one is
    manner   `well`, or `garbage` (instead of JSON)

Each request is a line of JSON on standard output.
"""

import hashlib
import hmac
import json
import os
import ssl
import subprocess
import sys
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = b"only the provider has it"
TABLE = "ip signed"


def signature_of(payload: str) -> str:
    """Return the proof that the provider has made a payload."""
    return b64encode(hmac.digest(KEY, payload.encode(), hashlib.sha512)).decode()


class Signer(BaseHTTPRequestHandler):
    """Answers `GET /getSignature?token=` and `GET /bindPort?payload=&signature=`."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        """Answer one request."""
        settings = json.loads(Path(self.server.wanted["settings"]).read_text("utf-8"))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        request = {"path": url.path, "client": self.client_address[0], **query}
        print(json.dumps(request), flush=True)  # noqa: T201 - it is what the lab reads
        manner = settings.get("manner", "well")
        if manner == "garbage":
            self._answer(os.urandom(500) + b"[" * 50_000)
        elif url.path == "/getSignature":
            self._say(self._signed(settings, query))
        elif url.path == "/bindPort":
            self._say(self._bound(query, settings.get("also", [])))
        else:
            self._say({"status": "ERROR", "message": "unknown"})

    def _signed(self, settings: dict[str, Any], query: dict[str, str]) -> dict[str, str]:
        if query.get("token") != settings["token"]:
            return {"status": "ERROR", "message": f"bad token {query.get('token')}"}
        end = datetime.fromtimestamp(settings["expires"], UTC)
        document = {
            "token": settings["token"],
            "port": settings["port"],
            "expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
        }
        payload = b64encode(json.dumps(document).encode()).decode()
        return {"status": "OK", "payload": payload, "signature": signature_of(payload)}

    def _bound(self, query: dict[str, str], also: list[int]) -> dict[str, str]:
        payload, given = query.get("payload", ""), query.get("signature", "")
        if not hmac.compare_digest(given, signature_of(payload)):
            return {"status": "ERROR", "message": "bad signature"}
        port = json.loads(b64decode(payload))["port"]
        wanted, client = self.server.wanted, self.client_address[0]
        rules = "".join(
            f"ip daddr {wanted['exit']} {kind} dport {each} dnat to {client}:{each}\n"
            for kind in ("tcp", "udp")
            for each in (port, *also)
        )
        text = (
            f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n chain arrival {{\n"
            f"type nat hook prerouting priority dstnat - 1;\n{rules}}}\n}}\n"
        )
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        return {"status": "OK", "message": "port scheduled for add"}

    def _say(self, document: dict[str, str]) -> None:
        self._answer(json.dumps(document).encode())

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
    server = _Server((wanted["address"], wanted["port"]), Signer)
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
