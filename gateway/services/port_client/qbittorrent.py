"""qBittorrent's Web API, 4.1 to 5.x, as far as its port is concerned.

https://github.com/qbittorrent/qBittorrent/wiki (WebUI API). It answers 200 also where the port
cannot be had, so that is looked for elsewhere. Standard library only.
"""

import json
from urllib.parse import urlencode

from gateway.policy.port_client import Outcome
from gateway.services.port_client.http import OK, Answer, Asked, Trouble, unexpected
from gateway.services.port_client.setting import Setting

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NO_CONTENT, UNAUTHORIZED, FORBIDDEN = 204, 401, 403
ONLY_UTP = 2
"""The value of `bittorrent_protocol` with which it takes no connections of TCP."""


class QBittorrent:
    """One qBittorrent; see `port_setting.Client`."""

    def __init__(self, web: Asked, user: str, password: str) -> None:
        self._web = web
        self._login = urlencode({"username": user, "password": password}) if password else ""

    def read(self) -> Setting:
        """Return its setting; see `Client.read`."""
        settings = self._asked("app/preferences").object()
        port = settings.get("listen_port")
        if type(port) is not int:
            raise Trouble(Outcome.ODD, "it has no listen_port")
        fixed = not settings.get("random_port") and not settings.get("upnp")
        return Setting(port, fixed=fixed, by_udp=settings.get("bittorrent_protocol") == ONLY_UTP)

    def write(self, port: int) -> None:
        """Give it another port; see `Client.write`."""
        wanted = {"listen_port": port, "random_port": False, "upnp": False}
        self._asked("app/setPreferences", urlencode({"json": json.dumps(wanted)}))

    def _asked(self, what: str, form: str = "") -> Answer:
        answer = self._sent(what, form)
        if answer.status == FORBIDDEN:
            self._log_in()
            answer = self._sent(what, form)
        if answer.status == UNAUTHORIZED:
            raise Trouble(Outcome.FORBIDDEN, "HTTP 401")
        if answer.status == FORBIDDEN:
            raise Trouble(Outcome.LOGIN_WANTED, "HTTP 403")
        if answer.status not in {OK, NO_CONTENT}:
            raise unexpected(answer)
        return answer

    def _sent(self, what: str, form: str) -> Answer:
        target = f"api/v2/{what}"
        return self._web.post(target, form, FORM) if form else self._web.get(target)

    def _log_in(self) -> None:
        """Log in, once: it counts what it refuses. Raises Trouble."""
        if not self._login:
            raise Trouble(Outcome.LOGIN_WANTED)
        answer = self._web.post("api/v2/auth/login", self._login, FORM)
        if answer.status == FORBIDDEN:
            raise Trouble(Outcome.BANNED)
        # 5.2 answers 204, or 401 to a wrong password; those before 200 to both.
        if answer.status == UNAUTHORIZED or answer.body.strip() == b"Fails.":
            raise Trouble(Outcome.REFUSED)
        if answer.status not in {OK, NO_CONTENT}:
            raise unexpected(answer)
