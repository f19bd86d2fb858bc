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
import subprocess
import sys
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tls_server  # type: ignore[import-not-found]  # found next to this file

KEY = b"only the provider has it"
TABLE = "ip signed"


def signature_of(payload: str) -> str:
    """Return the proof that the provider has made a payload."""
    return b64encode(hmac.digest(KEY, payload.encode(), hashlib.sha512)).decode()


class Signer(tls_server.Handler):  # type: ignore[misc]
    """Answers `GET /getSignature?token=` and `GET /bindPort?payload=&signature=`."""

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        """Answer one request."""
        settings = json.loads(Path(self.wanted["settings"]).read_text("utf-8"))
        path, query = self.asked()
        self.note(path=path, client=self.client_address[0], **query)
        manner = settings.get("manner", "well")
        if manner == "garbage":
            self.answer(os.urandom(500) + b"[" * 50_000)
        elif path == "/getSignature":
            self.answer_json(self._signed(settings, query))
        elif path == "/bindPort":
            self.answer_json(self._bound(query, settings.get("also", [])))
        else:
            self.answer_json({"status": "ERROR", "message": "unknown"})

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
        wanted, client = self.wanted, self.client_address[0]
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


if __name__ == "__main__":
    tls_server.run(Signer)
