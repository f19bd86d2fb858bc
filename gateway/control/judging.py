"""What is decided about a request before it is answered: where it leads, and whether it may."""

import asyncio
from collections.abc import Callable

from gateway.control import answers, browsers, urls
from gateway.control.access import Gate, Headers, Ruling, Shown, Unreadable, Verdict, shown_by
from gateway.control.answers import Answer
from gateway.control.patience import Patience
from gateway.model.control import READING, ROUTES

NO_PATH = answers.error(400, "the target of a request has to be a path")
KEY_IN_URL = answers.error(
    400,
    "a credential in the URL would end up in logs and histories, so it is not used; send it in the "
    "header X-API-Key or Authorization, and change it if it was a real one",
)
FROM_A_PAGE = answers.error(403, browsers.ORIGIN_REFUSED)
FOREIGN_HOST = answers.error(403, browsers.HOST_REFUSED)
NOT_ALLOWED = answers.error(403, "this credential is for other routes")
HOW = "send X-API-Key, Authorization: Bearer, or HTTP basic, as the role says"

NOT_HERE = {
    "/v1/openvpn/settings": "WireGuard is the only protocol; /v1/vpn/settings has what is public",
    "/v1/updater/status": "the list is fetched again as UPDATER_PERIOD says",
    "/v1/vpn/serverchoices": "use `gateway servers list`",
    "/openvpn/actions/restart": "use POST /api/v1/reconnect",
    "/openvpn/portforwarded": "use GET /v1/portforward",
    "/openvpn/settings": "use GET /v1/vpn/settings",
    "/unbound/actions/restart": "the gateway restarts its resolver itself",
    "/updater/restart": "the list is fetched again as UPDATER_PERIOD says",
}
"""Routes of gluetun that are not served, with what to do."""


def routed(method: str, target: bytes, headers: Headers) -> str | Answer:
    """Return the route of a request as `Role` has it, or why it leads nowhere."""
    path = urls.path_of(target)
    if path is None:
        return NO_PATH
    if urls.has_credential(target):
        return KEY_IN_URL
    if browsers.is_from_a_page(headers):
        return FROM_A_PAGE
    if path not in ROUTES:
        return answers.error(404, f"not here; {NOT_HERE.get(path, 'docs/control-api.md has all')}")
    return _with_method(method, path)


def _with_method(method: str, path: str) -> str | Answer:
    methods = ROUTES[path]
    both = [(it, "HEAD") if it == READING else (it,) for it in methods]
    allowed = ", ".join((*(one for it in both for one in it), "OPTIONS"))
    if method == "OPTIONS":
        return Answer(204, b"", headers=(("Allow", allowed),))
    asked_as = READING if method == "HEAD" else method
    if asked_as not in methods:
        return answers.error(405, f"only {allowed}", ("Allow", allowed))
    return f"{asked_as} {path}"


class Judge:
    """Decides who may use a route; `denied` gets the address of each wrong credential."""

    def __init__(self, denied: Callable[[str], None]) -> None:
        self.gate = Gate(b"", ())
        self._denied = denied
        self._patience = Patience(asyncio.get_running_loop().time)

    async def judged(self, route: str, headers: Headers, client: str) -> Ruling | Answer:
        """Return the ruling for a request that is allowed, else the answer to it."""
        try:
            shown = shown_by(headers)
        except Unreadable as err:
            return self._asked_for(route, str(err))
        if shown is not None:
            await asyncio.sleep(self._patience.wait_for(client))
        ruling = self.gate.ruling(route, shown)
        match ruling.verdict:
            case Verdict.UNKNOWN:
                return self._unknown(route, shown, client)
            case Verdict.FORBIDDEN:
                return NOT_ALLOWED
            case Verdict.ALLOWED:
                is_known = ruling.has_shown or _is_local(headers)
                return ruling if is_known else FOREIGN_HOST

    def _unknown(self, route: str, shown: Shown | None, client: str) -> Answer:
        """Return why a request is refused, and remember a wrong credential."""
        if shown is not None:
            self._patience.failed(client)
            self._denied(client)
        text = "this credential is not known" if shown else "a credential is needed"
        return self._asked_for(route, f"{text}; {HOW}")

    def _asked_for(self, route: str, text: str) -> Answer:
        return answers.error(401, text, ("WWW-Authenticate", self.gate.challenge(route)))


def _is_local(headers: Headers) -> bool:
    """Return whether the Host of a request is a name of this network, or an address."""
    hosts = browsers.values_of(headers, b"host")
    return all(browsers.is_local(it.decode("ascii", "replace")) for it in hosts)
