"""Transmission's RPC, 2.4 to 4.x, as far as its port is concerned.

docs/rpc-spec.md of its source: 4.1 has another form too, and still takes this one. Standard library
only.
"""

import json
from base64 import b64encode
from typing import Any

from gateway.policy.port_client import Outcome
from gateway.services.port_client.http import OK, Asked, Trouble, unexpected
from gateway.services.port_client.setting import Setting

SESSION = "X-Transmission-Session-Id"
UNAUTHORIZED, FORBIDDEN, CONFLICT, MISDIRECTED = 401, 403, 409, 421
PORT, RANDOM, MAPPED = "peer-port", "peer-port-random-on-start", "port-forwarding-enabled"
LONGEST_SESSION = 256


class Transmission:
    """One Transmission; see `port_setting.Client`."""

    def __init__(self, web: Asked, user: str, password: str) -> None:
        self._web = web
        self._headers = {"Content-Type": "application/json"}
        self._has_login = bool(user or password)
        if self._has_login:
            login = b64encode(f"{user}:{password}".encode()).decode("ascii")
            self._headers["Authorization"] = f"Basic {login}"

    def read(self) -> Setting:
        """Return its setting; see `Client.read`."""
        found = self._asked("session-get", {"fields": [PORT, RANDOM, MAPPED]})
        port = found.get(PORT)
        if type(port) is not int:
            raise Trouble(Outcome.ODD, f"it has no {PORT}")
        return Setting(port, fixed=not found.get(RANDOM) and not found.get(MAPPED))

    def write(self, port: int) -> None:
        """Give it another port; see `Client.write`."""
        self._asked("session-set", {PORT: port, RANDOM: False, MAPPED: False})

    def _asked(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"method": method, "arguments": arguments})
        answer = self._web.post("rpc", body, self._headers)
        if answer.status == CONFLICT:
            session = answer.headers.get(SESSION.lower(), "")
            if not (session.isascii() and session.isprintable() and session):
                raise Trouble(Outcome.ODD, "HTTP 409")
            self._headers[SESSION] = session[:LONGEST_SESSION]
            answer = self._web.post("rpc", body, self._headers)
        if answer.status == UNAUTHORIZED:
            raise Trouble(Outcome.REFUSED if self._has_login else Outcome.LOGIN_WANTED)
        if answer.status in {FORBIDDEN, MISDIRECTED}:
            # After a hundred wrong logins too, until it is started again.
            banned = b"login attempts" in answer.body
            kind = Outcome.BANNED if banned else Outcome.FORBIDDEN
            raise Trouble(kind, "" if banned else f"HTTP {answer.status}")
        if answer.status != OK:
            raise unexpected(answer)
        found = answer.object()
        if found.get("result") != "success":
            raise Trouble(Outcome.ODD, f"it refuses {method}")
        values = found.get("arguments")
        return values if isinstance(values, dict) else {}
