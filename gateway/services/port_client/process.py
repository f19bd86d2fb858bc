"""The process that talks to a torrent client: without rights, and with no way to anywhere else.

It gets requests as messages on the descriptor CHANNEL, one after the other, and answers each with
one. It opens no connection: it asks for one, and gets it to the address that the gateway knows. So
what a client can do to it ends here. Standard library only, and of the gateway only what is.
"""

import codecs
import ctypes as _ctypes  # noqa: F401 - before the rights are given up
import json
import os
import resource
import signal
import socket
import sys
from ipaddress import ip_address
from typing import Any

from gateway.errors import NetworkError
from gateway.model.port_client import ClientKind, ClientUrl
from gateway.policy.port_client import Look, Outcome
from gateway.services.port_client.deluge import Deluge
from gateway.services.port_client.http import Trouble, Web
from gateway.services.port_client.messages import CHANNEL, CONNECT, LARGEST, LOOK_TIME
from gateway.services.port_client.qbittorrent import QBittorrent
from gateway.services.port_client.setting import Client, Place, Sockets, look
from gateway.services.port_client.transmission import Transmission
from gateway.system.rights import give_up_rights
from gateway.system.seccomp import refuse_connecting

LIMITS = (
    (resource.RLIMIT_AS, 256 << 20),
    (resource.RLIMIT_CPU, 60),
    (resource.RLIMIT_NOFILE, 32),
    (resource.RLIMIT_FSIZE, 0),
)
"""Octets of address space, seconds of the processor until it is started again, and so on."""
ENCODINGS = ("ascii", "idna", "iso-8859-1", "utf-8")


def main() -> None:
    """Be the process, and end it when the gateway hangs up."""
    for encoding in ENCODINGS:  # Python imports them when they are first used
        codecs.lookup(encoding)
    try:
        give_up_rights("the process for the torrent client", LIMITS)
        refuse_connecting()
    except (NetworkError, OSError, NotImplementedError) as err:
        sys.stderr.write(f"{err}\n")
        sys.stderr.flush()
        os._exit(1)
    channel = socket.socket(fileno=CHANNEL)
    signal.signal(signal.SIGALRM, _too_late)
    talker = Talker(channel)
    while True:
        request, given, _, _ = socket.recv_fds(channel, LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
        if not request:
            os._exit(0)
        if request[:1] != b"{":  # a connection that came after its look had ended
            for descriptor in given:
                os.close(descriptor)
            continue
        asked = json.loads(request)
        talker.sockets.use(
            socket.socket(fileno=given[0]),
            Place(tuple(map(ip_address, asked["addresses"])), asked["device"], asked["web"]),
        )
        channel.send(json.dumps(talker.answer(asked)).encode())


class Talker:
    """Keeps the login and what is known of the client from one request to the next."""

    def __init__(self, channel: socket.socket) -> None:
        self.sockets = Sockets()
        self._channel = channel
        self._known: dict[str, Any] = {}
        self._web: Web | None = None
        self._client: Client | None = None

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request: what came of a look, or nothing if none was wanted.

        With `unless` none is wanted while the sockets of the client's web interface are those.
        """
        seen = tuple(it.inode for it in self.sockets.web())
        if asked["unless"] is not None and list(seen) == asked["unless"]:
            return {}
        signal.setitimer(signal.ITIMER_REAL, LOOK_TIME)
        try:
            done = look(self._client_of(asked["client"]), self.sockets, asked["port"])
        except Trouble as err:
            done = Look(err.outcome, asked["port"], err.detail)
        except OSError as err:
            done = Look(Outcome.ABSENT, asked["port"], err.strerror or type(err).__name__)
        except MemoryError:
            done = Look(Outcome.ODD, asked["port"], "its answer takes too much memory")
        except Exception as err:  # noqa: BLE001 - what an answer can do to a library is not foreseen
            done = Look(Outcome.ODD, asked["port"], f"{type(err).__name__}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if self._web:
                self._web.hang_up()
        said = {"outcome": done.outcome, "detail": done.detail, "changed": done.changed}
        return {**said, "seen": seen}

    def _client_of(self, wanted: dict[str, Any]) -> Client:
        """Return the client that is wanted: the one known already, if it is the same."""
        if self._client is None or wanted != self._known:
            kind, path = ClientKind(wanted["kind"]), wanted["path"]
            url = ClientUrl(ip_address(wanted["address"]), wanted["port"], path, wanted["tls"])
            self._web = web = Web(url, self._connected)
            self._client = _client(kind, web, wanted["user"], wanted["password"])
            self._known = wanted
        return self._client

    def _connected(self) -> socket.socket:
        """Return a connection that the gateway has made. Raises OSError."""
        self._channel.send(CONNECT)
        said, given, _, _ = socket.recv_fds(self._channel, LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
        if not given:
            number = int(said or b"0")
            raise OSError(number, os.strerror(number))
        return socket.socket(fileno=given[0])


def _too_late(*_: object) -> None:
    raise TimeoutError(None, f"no answer after {LOOK_TIME:g} s")


def _client(kind: ClientKind, web: Web, user: str, password: str) -> Client:
    match kind:
        case ClientKind.QBITTORRENT:
            return QBittorrent(web, user, password)
        case ClientKind.TRANSMISSION:
            return Transmission(web, user, password)
        case ClientKind.DELUGE:
            return Deluge(web, user, password)
