"""What each torrent client can answer, and what is made of it; real ones are in the lab."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.policy.port_client import Outcome
from gateway.services.port_client.deluge import Deluge
from gateway.services.port_client.http import Answer, Trouble
from gateway.services.port_client.qbittorrent import QBittorrent
from gateway.services.port_client.setting import Place, Setting, Sockets, judged, look
from gateway.services.port_client.transmission import SESSION, Transmission
from gateway.system.listeners import Listener

PREFERENCES = {"listen_port": 6881, "random_port": False, "upnp": False, "bittorrent_protocol": 0}


@dataclass
class Web:
    """A web interface whose answers `answers` gives by target and body; it notes the requests."""

    answers: Callable[[str, str], tuple[int, bytes] | tuple[int, bytes, dict[str, str]]]
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    def get(self, target: str) -> Answer:
        """Answer GET."""
        return self.post(target, "", {})

    def post(self, target: str, body: str, headers: Mapping[str, str]) -> Answer:
        """Answer POST."""
        self.asked.append((target, body, dict(headers)))
        status, content, *more = self.answers(target, body)
        return Answer(status, more[0] if more else {}, content)


def outcome_of(call: Callable[[], object]) -> Outcome:
    """Return what `call` ends with."""
    with pytest.raises(Trouble) as caught:
        call()
    return caught.value.outcome


class LoggingIn:
    """A qBittorrent that wants a login, and answers it in some way."""

    def __init__(self, status: int, body: bytes, *, helps: bool = True) -> None:
        self.login, self.helps, self.logins = (status, body), helps, 0

    def __call__(self, target: str, _: str) -> tuple[int, bytes]:
        """Answer a request."""
        if target == "api/v2/auth/login":
            self.logins += 1
            return self.login
        if self.logins and self.helps:
            return 200, json.dumps(PREFERENCES).encode()
        return 403, b"Forbidden"


@pytest.mark.parametrize(("status", "body"), [(200, b"Ok."), (204, b"")])
def test_qbittorrent_of_any_version_lets_in_who_has_the_password(status: int, body: bytes) -> None:
    """Once: its cookie is for the requests that follow."""
    answers = LoggingIn(status, body)
    client = QBittorrent(Web(answers), "admin", "a&b=c")
    assert client.read() == client.read() == Setting(6881, fixed=True)
    assert answers.logins == 1


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"Fails.", Outcome.REFUSED),
        (401, b"", Outcome.REFUSED),
        (403, b"banned", Outcome.BANNED),
        (404, b"", Outcome.NOT_FOUND),
        (500, b"", Outcome.ODD),
    ],
)
def test_qbittorrent_that_does_not_is_asked_once(
    status: int, body: bytes, outcome: Outcome
) -> None:
    """It counts."""
    answers = LoggingIn(status, body)
    assert outcome_of(QBittorrent(Web(answers), "admin", "p").read) is outcome
    assert answers.logins == 1


def test_qbittorrent_without_a_password_is_not_logged_in_to() -> None:
    """And neither is one whose login changes nothing tried for ever."""
    answers = LoggingIn(200, b"Ok.")
    assert outcome_of(QBittorrent(Web(answers), "", "").read) is Outcome.LOGIN_WANTED
    assert answers.logins == 0
    answers = LoggingIn(200, b"Ok.", helps=False)
    assert outcome_of(QBittorrent(Web(answers), "u", "p").read) is Outcome.LOGIN_WANTED
    assert answers.logins == 1


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (401, b"Unauthorized", Outcome.FORBIDDEN),
        (404, b"", Outcome.NOT_FOUND),
        (200, b"<html>", Outcome.ODD),
        (200, b"[]", Outcome.ODD),
        (200, b'{"listen_port": "6881"}', Outcome.ODD),
        (200, b'{"listen_port": true}', Outcome.ODD),
    ],
)
def test_qbittorrent_that_answers_otherwise(status: int, body: bytes, outcome: Outcome) -> None:
    """Such as for a wrong Host header."""
    assert outcome_of(QBittorrent(Web(lambda *_: (status, body)), "u", "p").read) is outcome


def test_qbittorrent_that_chooses_ports_or_takes_only_utp() -> None:
    """The first is not as wanted; for the second another kind of socket is looked for."""
    for changed in ({"random_port": True}, {"upnp": True}):
        raw = json.dumps(PREFERENCES | changed).encode()
        assert not QBittorrent(Web(lambda *_, raw=raw: (200, raw)), "", "").read().fixed
    raw = json.dumps(PREFERENCES | {"bittorrent_protocol": 2}).encode()
    assert QBittorrent(Web(lambda *_: (200, raw)), "", "").read().by_udp


@pytest.mark.parametrize(
    ("status", "body", "login", "outcome"),
    [
        (401, b"", "p", Outcome.REFUSED),
        (401, b"", "", Outcome.LOGIN_WANTED),
        (403, b"Unauthorized IP Address", "p", Outcome.FORBIDDEN),
        (403, b"Too many unsuccessful login attempts.", "p", Outcome.BANNED),
        (421, b"", "p", Outcome.FORBIDDEN),
        (409, b"", "p", Outcome.ODD),
        (404, b"", "p", Outcome.NOT_FOUND),
        (200, b'{"result": "no method name"}', "p", Outcome.ODD),
        (200, b'{"result": "success", "arguments": 5}', "p", Outcome.ODD),
        (200, b'{"result": "success", "arguments": {"peer-port": null}}', "p", Outcome.ODD),
    ],
)
def test_transmission_that_refuses(status: int, body: bytes, login: str, outcome: Outcome) -> None:
    """With one request, or two for the id of its session."""
    web = Web(lambda *_: (status, body))
    assert outcome_of(Transmission(web, login, login).read) is outcome
    assert len(web.asked) == 1


def test_transmission_gets_the_id_of_its_session_back() -> None:
    """Once for each session; a client that wants another one each time is not asked for ever."""
    good = json.dumps({"result": "success", "arguments": {"peer-port": 6881}}).encode()
    web = Web(lambda *_: (409, b"", {SESSION.lower(): f"id{len(web.asked)}"}) if len(web.asked) < 2
              else (200, good))  # fmt: skip
    client = Transmission(web, "", "")
    assert client.read() == Setting(6881, fixed=True)
    client.write(51413)
    assert [headers.get(SESSION) for _, _, headers in web.asked] == [None, "id1", "id1"]
    assert "Authorization" not in web.asked[0][2]
    odd = Web(lambda *_: (409, b"", {SESSION.lower(): "another"}))
    assert outcome_of(Transmission(odd, "", "").read) is Outcome.ODD
    assert len(odd.asked) == 2
    split = Web(lambda *_: (409, b"", {SESSION.lower(): "a\r\nHost: b"}))
    assert outcome_of(Transmission(split, "", "").read) is Outcome.ODD


def deluge(**results: Any) -> Deluge:
    """Return a Deluge whose methods have these results, by their names with _ for the dot."""

    def answers(_: str, body: str) -> tuple[int, bytes]:
        method = json.loads(body)["method"].replace(".", "_")
        result = results.get(method)
        if isinstance(result, list) and method.startswith("web_connected"):
            result = result.pop(0)
        code = {"who": 1, "bad": 4}.get(result) if isinstance(result, str) else None
        error = {"message": "", "code": code} if code else None
        return 200, json.dumps({"result": result, "error": error, "id": 1}).encode()

    return Deluge(Web(answers), "", "p")


PORTS = {"listen_ports": [6881, 6881], "random_port": False, "upnp": False, "natpmp": False}
HOST = ["id", "127.0.0.1", 58846, "Online"]


def test_deluge_is_connected_to_its_daemon_where_that_is_necessary() -> None:
    """And says where it really listens."""
    found = deluge(
        web_connected=[False, True],
        web_get_hosts=[["far", "192.0.2.1", 1, ""], HOST],
        core_get_config_values=PORTS,
        core_get_listen_port=0,
    ).read()
    assert found == Setting(6881, fixed=True, has=0)


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ({"web_connected": "who", "auth_login": False}, Outcome.REFUSED),
        ({"web_connected": "who", "auth_login": True}, Outcome.ODD),
        ({"web_connected": False, "web_get_hosts": []}, Outcome.NO_DAEMON),
        ({"web_connected": False, "web_get_hosts": [[1, 2], "x", []]}, Outcome.NO_DAEMON),
        ({"web_connected": False, "web_get_hosts": {"a": 1}}, Outcome.NO_DAEMON),
        ({"web_connected": [False, False], "web_get_hosts": [HOST]}, Outcome.NO_DAEMON),
        ({"web_connected": True, "core_get_listen_port": "6881"}, Outcome.ODD),
        ({"web_connected": True, "core_get_config_values": "bad"}, Outcome.NO_DAEMON),
        (
            {
                "web_connected": True,
                "core_get_listen_port": 1,
                "core_get_config_values": {"listen_ports": [[]]},
            },
            Outcome.ODD,
        ),
    ],
)
def test_deluge_that_cannot_be_used(results: dict[str, Any], outcome: Outcome) -> None:
    """By any of its answers."""
    assert outcome_of(deluge(**results).read) is outcome


def test_deluge_with_two_ports_or_its_own_requests_is_not_as_wanted() -> None:
    """The first of the two is what counts."""
    for changed in ({"listen_ports": [6881, 6891]}, {"natpmp": True}, {"random_port": True}):
        client = deluge(
            web_connected=True, core_get_config_values=PORTS | changed, core_get_listen_port=6881
        )
        assert client.read() == Setting(6881, fixed=False, has=6881)


def at(address: str, inode: int, owner: int = 1) -> Listener:
    """Return a socket."""
    return Listener(ip_address(address), 0, inode, (owner, 1))


class Known(Sockets):
    """Sockets that are known, by port; that of the web interface is at port 80."""

    def __init__(self, found: dict[int, tuple[Listener, ...] | None]) -> None:
        super().__init__()
        self.found = found
        self._place = Place((ip_address("10.64.0.2"),), 7, 80)

    def at(self, port: int, protocol: int = 6) -> tuple[Listener, ...] | None:
        """Return those at `port`."""
        del protocol
        return self.found.get(port, ())


WEB = (at("127.0.0.1", 1),)


@pytest.mark.parametrize(
    ("found", "has", "outcome"),
    [
        ((at("0.0.0.0", 2),), None, Outcome.LISTENING),
        ((at("10.64.0.2", 2),), None, Outcome.LISTENING),
        ((at("10.64.0.2", 2, owner=5),), None, Outcome.TAKEN),
        ((at("10.64.0.2", 2, owner=5),), 51413, Outcome.LISTENING),
        ((at("10.64.0.2", 2),), 0, Outcome.TAKEN),
        ((at("172.30.0.2", 2),), None, Outcome.ELSEWHERE),
        ((at("172.30.0.2", 2), at("10.64.0.2", 3, owner=5)), None, Outcome.TAKEN),
        ((), None, Outcome.SILENT),
        (None, None, Outcome.NOT_SEEN),
    ],
)
def test_the_sockets_say_whether_the_client_listens(
    found: tuple[Listener, ...] | None, has: int | None, outcome: Outcome
) -> None:
    """The kernel knows better than most clients."""
    setting = Setting(51413, fixed=True, has=has)
    assert judged(Known({80: WEB}), setting, found)[0] is outcome


class Client:
    """A client that opens its socket as some do: never where another one is, and not again."""

    def __init__(self, sockets: Known, port: int, *, obeys: bool = True) -> None:
        self.sockets, self.port, self.obeys = sockets, port, obeys
        self.written: list[int] = []

    def read(self) -> Setting:
        """Return its setting."""
        return Setting(self.port, fixed=True)

    def write(self, port: int) -> None:
        """Take another port."""
        self.written.append(port)
        if self.obeys and port != self.port:
            self.sockets.found.pop(self.port, None)
            self.port = port
            self.sockets.found.setdefault(port, (at("0.0.0.0", 100 + len(self.written)),))


def test_a_client_that_does_not_listen_is_made_to_ask_for_its_port_again() -> None:
    """By way of another port, because a port that it has already changes nothing."""
    sockets = Known({80: WEB})
    client = Client(sockets, 51413)
    found = look(client, sockets, 51413)
    assert (found.outcome, found.changed) == (Outcome.LISTENING, True)
    assert client.written == [51412, 51413]
    again = look(client, sockets, 51413)
    assert (again.outcome, again.changed) == (Outcome.LISTENING, False)


def test_a_port_of_another_program_of_the_same_user_is_known_from_before() -> None:
    """What listened there before the client got its port is not the client's, then and later."""
    sockets = Known({80: WEB, 51413: (at("0.0.0.0", 50),)})
    client = Client(sockets, 6881)
    assert look(client, sockets, 51413).outcome is Outcome.TAKEN
    assert look(client, sockets, 51413).outcome is Outcome.TAKEN
    assert client.written == [51413]
    del sockets.found[51413]
    assert look(client, sockets, 51413).outcome is Outcome.LISTENING


def test_a_client_that_does_not_obey_is_reported() -> None:
    """It says 200, and another port."""
    sockets = Known({80: WEB, 6881: (at("0.0.0.0", 50),)})
    found = look(Client(sockets, 6881, obeys=False), sockets, 51413)
    assert (found.outcome, found.detail) == (Outcome.NOT_SET, "it says 6881")
