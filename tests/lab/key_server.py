"""Plays a VPN server that takes keys over TLS, and gives them to WireGuard. A program of its own.

    python key_server.py JSON

JSON has `address`, `port`, `certificate` (a file with the key too), `token`, `interface`, the
WireGuard interface, `client`, the address that a key gets there, `answer`, what is answered with
`peer_ip` added, and `manner`: `well`, `stalled` (nothing is answered), `odd` (`answer` as it is) or
`huge`. Each request is a line of JSON on standard output.
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tls_server  # type: ignore[import-not-found]  # found next to this file

STALL = 600.0
HUGE = 64 << 20


class KeyServer(tls_server.Handler):  # type: ignore[misc]
    """Answers `GET /addKey?pt=TOKEN&pubkey=KEY`."""

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        """Take a key."""
        wanted = self.wanted
        path, query = self.asked()
        self.note(at=time.monotonic(), path=path, **query)
        if wanted["manner"] == "stalled":
            time.sleep(STALL)
        if wanted["manner"] == "huge":
            self.answer(b" " * HUGE)
        elif wanted["manner"] == "odd":
            self.answer_json(wanted["answer"])
        elif query.get("pt") != wanted["token"]:
            self.answer_json({"status": "ERROR", "message": self.path})
        else:
            allowed = f"{wanted['client']}/32"
            subprocess.run(
                ["wg", "set", wanted["interface"], "peer", query["pubkey"],
                 "preshared-key", "/dev/null", "allowed-ips", allowed],
                check=True,
            )  # fmt: skip
            self.answer_json({**wanted["answer"], "peer_ip": wanted["client"]})


if __name__ == "__main__":
    tls_server.run(KeyServer)
