"""The JSON interface of Deluge 2's web interface, as far as its port is concerned.

https://deluge.readthedocs.io (web JSON-RPC API). The web interface is a program of its own, which
talks to the daemon once it has been connected. Standard library only.
"""

import json
from typing import Any

from gateway.policy.port_client import Outcome
from gateway.services.port_client.http import OK, Asked, Trouble, unexpected
from gateway.services.port_client.setting import Setting

JSON = {"Content-Type": "application/json"}
NOT_AUTHENTICATED = 1
"""Its number of that error (deluge/ui/web/json_api.py)."""
PORTS, RANDOM, UPNP, NATPMP = "listen_ports", "random_port", "upnp", "natpmp"
LOCAL = {"127.0.0.1", "::1", "localhost"}
MOST_HOSTS = 64


class Deluge:
    """One Deluge; see `port_setting.Client`."""

    def __init__(self, web: Asked, user: str, password: str) -> None:
        del user  # it has none
        self._web = web
        self._password = password

    def read(self) -> Setting:
        """Return its setting; see `Client.read`."""
        self._connect()
        found = self._asked("core.get_config_values", [PORTS, RANDOM, UPNP, NATPMP])
        listening = self._asked("core.get_listen_port")
        if not isinstance(found, dict) or type(listening) is not int:
            raise Trouble(Outcome.ODD, "it does not say its port")
        ports = found.get(PORTS)
        if not isinstance(ports, list) or not ports or {type(it) for it in ports} != {int}:
            raise Trouble(Outcome.ODD, f"it has no {PORTS}")
        single = len(set(ports)) == 1
        others = found.get(RANDOM) or found.get(UPNP) or found.get(NATPMP)
        # `has` is the one that it really has, 0 where it could not get it.
        return Setting(ports[0], fixed=single and not others, has=listening)

    def write(self, port: int) -> None:
        """Give it another port; see `Client.write`."""
        self._connect()
        wanted = {RANDOM: False, PORTS: [port, port], UPNP: False, NATPMP: False}
        self._asked("core.set_config", wanted)

    def _connect(self) -> None:
        """Log in if necessary, and have it talk to a daemon. Raises Trouble."""
        if self._asked("web.connected"):
            return
        hosts = self._asked("web.get_hosts")
        found = [it for it in hosts[:MOST_HOSTS] if _is_host(it)] if isinstance(hosts, list) else []
        found.sort(key=lambda it: it[1] not in LOCAL)
        if not found:
            raise Trouble(Outcome.NO_DAEMON, "it knows none")
        self._asked("web.connect", found[0][0], failing=Outcome.NO_DAEMON)
        if not self._asked("web.connected"):
            raise Trouble(Outcome.NO_DAEMON, "not connected")

    def _asked(self, method: str, *given: Any, failing: Outcome = Outcome.ODD) -> Any:
        result, error = self._sent(method, given)
        if error == NOT_AUTHENTICATED:
            self._log_in()
            result, error = self._sent(method, given)
        if error is not None:
            # What the daemon is asked fails while it starts, and when it has gone.
            of_daemon = method.startswith("core.")
            raise Trouble(Outcome.NO_DAEMON if of_daemon else failing, f"{method} fails")
        return result

    def _log_in(self) -> None:
        accepted, error = self._sent("auth.login", (self._password,))
        if error is not None or accepted is not True:
            raise Trouble(Outcome.REFUSED)

    def _sent(self, method: str, given: tuple[Any, ...]) -> tuple[Any, int | None]:
        """Return the result of a call, and the number of its error or None. Raises Trouble."""
        body = json.dumps({"method": method, "params": given, "id": 1})
        answer = self._web.post("json", body, JSON)
        if answer.status != OK:
            raise unexpected(answer)
        found = answer.object()
        error = found.get("error")
        if error is None:
            return found.get("result"), None
        code = error.get("code") if isinstance(error, dict) else None
        return None, code if type(code) is int else 0


def _is_host(entry: object) -> bool:
    """Return whether an entry of the list of daemons has an id and a host."""
    return (
        isinstance(entry, list) and len(entry) > 1 and all(isinstance(it, str) for it in entry[:2])
    )
