"""Requests to a torrent client's web interface, made by a process without rights.

The client is a workload, so nothing that it answers is trusted: redirections are not followed, and
an answer has a largest size. How long all of it takes is limited by the caller. Standard library
only.
"""

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Protocol

from gateway.model.frozen import frozen
from gateway.model.port_client import ClientUrl
from gateway.policy.port_client import Outcome

SILENCE = 5.0
"""Seconds that the client may say nothing."""
LARGEST = 256 << 10
"""Octets of an answer; qBittorrent's settings have some 7000."""
MOST_COOKIES, LONGEST_COOKIE = 8, 1024
LONGEST_QUOTED = 60
OK = 200
REDIRECTIONS = range(300, 400)


class Trouble(Exception):  # noqa: N818 - what came of a look
    """A look has ended with `outcome`; `detail` is short and can be shown."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail


@frozen
class Answer:
    """An answer of the client: its status, one header of it that may be wanted, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON. Raises Trouble."""
        try:
            return json.loads(self.body.decode())  # no encoding is guessed
        except (ValueError, RecursionError) as err:
            raise Trouble(Outcome.ODD, "its answer is not JSON") from err

    def object(self) -> dict[str, Any]:
        """Return the body as an object of JSON. Raises Trouble."""
        value = self.json()
        if not isinstance(value, dict):
            raise Trouble(Outcome.ODD, "its answer is not an object")
        return value


class Asked(Protocol):
    """A web interface that can be asked."""

    def get(self, target: str) -> Answer:
        """Return the answer to GET. Raises Trouble."""

    def post(self, target: str, body: str, headers: Mapping[str, str]) -> Answer:
        """Return the answer to POST. Raises Trouble."""


class Web:
    """One web interface; it keeps its connection and its cookies from one request to the next."""

    def __init__(self, url: ClientUrl, connect: Callable[[], socket.socket]) -> None:
        """`connect` returns a connected socket, or raises OSError."""
        self._url = url
        self._connect = connect
        self._connection: http.client.HTTPConnection | None = None
        self._cookies: dict[str, str] = {}

    def get(self, target: str) -> Answer:
        """Return the answer to GET. Raises Trouble."""
        return self._ask("GET", target, None, {})

    def post(self, target: str, body: str, headers: Mapping[str, str]) -> Answer:
        """Return the answer to POST. Raises Trouble."""
        return self._ask("POST", target, body.encode(), headers)

    def hang_up(self) -> None:
        """Close the connection; the cookies stay."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        place = f"/{self._url.path}/{target}" if self._url.path else f"/{target}"
        given = {"User-Agent": "portcullis", "Accept-Encoding": "identity", **headers}
        if self._cookies:
            given["Cookie"] = "; ".join(f"{name}={it}" for name, it in self._cookies.items())
        if self._connection is not None:
            try:
                return self._asked(self._connection, (method, place), body, given)
            except (ConnectionError, http.client.RemoteDisconnected):
                self.hang_up()  # it was open for long, and the client has closed it
            except BaseException:
                self.hang_up()
                raise
        try:
            return self._asked(self._open(), (method, place), body, given)
        except TimeoutError as err:
            self.hang_up()
            raise Trouble(Outcome.ABSENT, "no answer in time") from err
        except OSError as err:
            self.hang_up()
            raise Trouble(Outcome.ABSENT, quoted(err.strerror or type(err).__name__)) from err
        except (http.client.HTTPException, ValueError) as err:
            self.hang_up()
            raise Trouble(Outcome.ODD, f"its answer is not HTTP: {type(err).__name__}") from err
        except BaseException:
            self.hang_up()
            raise

    def _open(self) -> http.client.HTTPConnection:
        """Return a new connection. Raises OSError."""
        host = str(self._url.address)
        channel = self._connect()
        channel.settimeout(SILENCE)
        if self._url.tls:
            try:
                channel = _encrypted(channel)
            except BaseException:
                channel.close()
                raise
        self._connection = made = http.client.HTTPConnection(host, self._url.port)
        made.auto_open = 0
        made.sock = channel
        return made

    def _asked(
        self,
        connection: http.client.HTTPConnection,
        what: tuple[str, str],
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer:
        """Return the answer. Raises Trouble, OSError, HTTPException and ValueError."""
        connection.request(*what, body, dict(headers))
        with connection.getresponse() as answer:
            content = answer.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise Trouble(Outcome.ODD, f"its answer is larger than {LARGEST >> 10} KiB")
            self._keep_cookies(answer.headers.get_all("Set-Cookie") or [])
            if answer.status in REDIRECTIONS:
                raise Trouble(Outcome.ODD, f"HTTP {answer.status}, a redirection")
            heads = {name.lower(): value for name, value in answer.headers.items()}
            gone = answer.will_close
        if gone:
            self.hang_up()
        return Answer(answer.status, heads, content)

    def _keep_cookies(self, lines: list[str]) -> None:
        for line in lines:
            name, _, value = line.partition(";")[0].strip().partition("=")
            fits = len(line) <= LONGEST_COOKIE and (name + value).isascii() and name.isprintable()
            if fits and value.isprintable() and len({*self._cookies, name}) <= MOST_COOKIES:
                self._cookies[name] = value


def _encrypted(channel: socket.socket) -> socket.socket:
    """Return `channel` with TLS. Its certificate is not checked: it is on loopback. OSError."""
    import ssl  # noqa: PLC0415 - few want it, and it is large

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(channel)


def quoted(text: str) -> str:
    """Return a text of the client as it can be shown."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:LONGEST_QUOTED])


def unexpected(answer: Answer) -> Trouble:
    """Return what to raise for a status that is not expected."""
    kind = Outcome.NOT_FOUND if answer.status == 404 else Outcome.ODD  # noqa: PLR2004
    return Trouble(kind, f"HTTP {answer.status}")
