"""Real torrent clients of the lab, and looks at them as the gateway takes them."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.namespace import Namespace
from tests.lab.process import Child, Household, eventually

PROJECT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "lab", "of-the-client-7"
"""The login of every client here; Deluge has no user."""


class Client(ABC):
    """A client in a namespace, with a directory that stays; `start` starts its processes."""

    kind: str
    url: tuple[str, int, str]
    user = USER
    others: tuple[int, ...] = ()
    """The ports of its other interfaces."""

    def __init__(self, namespace: Namespace, household: Household, *, login: bool = True) -> None:
        """Make its settings; without `login` it lets in who comes from loopback, if it can."""
        self.namespace = namespace
        self.login = login
        self.directory = household.file(self.kind)
        self.directory.mkdir()
        self._household = household
        self._children: list[Child] = []
        self.write_settings(6881)

    @abstractmethod
    def write_settings(self, port: int) -> None:
        """Write its settings before the first start, with `port`."""

    @abstractmethod
    def commands(self) -> Sequence[Sequence[str]]:
        """Return the commands of its processes."""

    def start(self) -> "Client":
        """Start it, and wait until its web interface listens."""
        env = {"HOME": str(self.directory), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        env |= {"LC_ALL": "C.UTF-8"}
        self._children = [
            self._household.start(self.namespace.command(argv), self.kind, env=env)
            for argv in self.commands()
        ]
        self.wait()
        return self

    def wait(self) -> None:
        """Wait until its web interface listens."""
        for port in (self.url[1], *self.others):
            eventually(lambda port=port: self.listens(port), timeout=15, what=f"{self.kind} {port}")

    def stop(self) -> None:
        """End it as an engine would."""
        for child in self._children:
            child.close(10)

    def kill(self) -> None:
        """End it at once, so that it writes no settings."""
        for child in self._children:
            child.signal(9)
            child.wait()

    def listens(self, port: int) -> bool:
        """Return whether anything in the namespace listens at `port`."""
        return bool(self.namespace.run("ss", "-Hltn", f"sport = :{port}").strip())


class QBittorrent(Client):
    """Debian's qbittorrent-nox."""

    kind = "qbittorrent"
    url = ("127.0.0.1", 8080, "")

    def write_settings(self, port: int) -> None:
        """Write qBittorrent.conf."""
        file = self.directory / "qBittorrent/config/qBittorrent.conf"
        file.parent.mkdir(parents=True, exist_ok=True)
        salt = bytes(range(16))
        made = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, 100000)
        stored = f"{b64encode(salt).decode()}:{b64encode(made).decode()}"
        file.write_text(
            "[LegalNotice]\nAccepted=true\n"
            f"[BitTorrent]\nSession\\Port={port}\nSession\\DHTEnabled=false\n"
            "Session\\LSDEnabled=false\n"
            f"[Preferences]\nWebUI\\Port={self.url[1]}\nWebUI\\Username={USER}\n"
            f"WebUI\\LocalHostAuth={str(self.login).lower()}\n"
            f'WebUI\\Password_PBKDF2="@ByteArray({stored})"\n',
            encoding="utf-8",
        )

    def commands(self) -> Sequence[Sequence[str]]:
        """Return its one command."""
        return [["qbittorrent-nox", f"--profile={self.directory}"]]


class Transmission(Client):
    """Debian's transmission-daemon."""

    kind = "transmission"
    url = ("127.0.0.1", 9091, "transmission")

    def write_settings(self, port: int) -> None:
        """Write settings.json."""
        settings = {
            "peer-port": port,
            "rpc-authentication-required": self.login,
            "rpc-username": USER,
            "rpc-password": PASSWORD,
            "dht-enabled": False,
            "lpd-enabled": False,
        }
        (self.directory / "settings.json").write_text(json.dumps(settings), encoding="utf-8")

    def commands(self) -> Sequence[Sequence[str]]:
        """Return its one command."""
        return [["transmission-daemon", "--foreground", "--config-dir", str(self.directory)]]


class Deluge(Client):
    """Debian's deluged, and its web interface."""

    kind = "deluge"
    url = ("127.0.0.1", 8112, "")
    user = ""
    others = (58846,)

    def write_settings(self, port: int) -> None:
        """Write core.conf and web.conf."""
        head = json.dumps({"file": 1, "format": 1})
        core = {"listen_ports": [port, port], "random_port": False, "dht": False, "lsd": False}
        salt = "0" * 40
        digest = hashlib.sha1(f"{salt}{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
        web = {"pwd_salt": salt, "pwd_sha1": digest, "first_login": False, "port": self.url[1]}
        for name, settings in (("core.conf", core), ("web.conf", web)):
            text = head + json.dumps(settings)
            (self.directory / name).write_text(text, encoding="utf-8")

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the commands of both."""
        return [
            [program, "--do-not-daemonize", "--config", str(self.directory)]
            for program in ("deluged", "deluge-web")
        ]


CLIENTS: Mapping[str, type[Client]] = {it.kind: it for it in (QBittorrent, Transmission, Deluge)}


class Looks:
    """Looks at a client as the gateway takes them, out of its namespace; see passing.py."""

    def __init__(
        self, namespace: Namespace, household: Household, addresses: Sequence[str]
    ) -> None:
        """`addresses` are those of the link wg0."""
        self._addresses = list(addresses)
        argv = namespace.command([sys.executable, "-m", "tests.lab.passing"])
        env = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self._child = household.start(argv, "passing", env=env)
        self._count = 0

    def look(self, client: Client, port: int, **changes: object) -> dict[str, Any]:
        """Have `client` listen at `port`, and return what came of it."""
        asked = {
            "kind": client.kind,
            "url": client.url,
            "user": client.user,
            "port": port,
            "password": PASSWORD,
            "addresses": self._addresses,
            **changes,
        }
        self._child.send(json.dumps(asked))
        self._count += 1
        eventually(self._answered, timeout=40, what=f"an answer: {self._child.output()}")
        said: dict[str, Any] = json.loads(self._child.output().splitlines()[self._count - 1])
        return said

    def _answered(self) -> bool:
        if self._child.exit_code is not None:
            raise LabError(self._child.output())
        return self._child.output().count("\n") >= self._count

    def pid(self) -> int:
        """Return the process that talks to the client."""
        path = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children")
        found = eventually(lambda: path.read_text("ascii").split(), timeout=5, what="the process")
        return int(found[0])
