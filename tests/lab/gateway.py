"""The gateway under test, as a container engine would run it."""

import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.container import Container
from tests.lab.errors import LabError
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, Child, Household, eventually
from tests.lab.server import CLIENT, INSIDE, Keys, Server
from tests.lab.workload import Workload

PROJECT = Path(__file__).resolve().parents[2]
HEALTH = ("127.0.0.1", 9999)


@dataclass(frozen=True)
class Health:
    """One answer of the health server; code 0 when nothing answers."""

    code: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """State that the body names, in lower case."""
        return str(self.body.get("state", "")).lower()


class Gateway:
    """The gateway's container and its main process, which comes and goes."""

    def __init__(
        self,
        namespace: Namespace,
        household: Household,
        server: Server,
        client: Keys,
        *,
        argv: Sequence[str] = (sys.executable, "-m", "gateway"),
        **options: Any,
    ) -> None:
        """Make the container with `options` as in Container; `start` starts the process."""
        self.container = Container(namespace, household, **options)
        self.namespace = namespace
        self.server = server
        self.client = client
        self.argv = list(argv)
        self.environment: dict[str, str] = {}
        self.started_at = 0.0
        self._household = household
        self._log = household.file("gateway.log")
        self._log_start = 0
        self._child: Child | None = None

    # -- environment ---------------------------------------------------------------------------

    def env(
        self, server: Server | None = None, *, family: int = 4, **changes: str | None
    ) -> dict[str, str]:
        """Return the variables for a tunnel to `server` by its endpoint of this IP family.

        `changes` replace variables, or remove those given as None. LAB_WIREGUARD and
        LAB_FIREWALL choose the backends. Without a change, workloads ask the tunnel's resolver
        themselves: another one would add to each start, in tests of other things.
        """
        server = server or self.server
        endpoint = server.endpoint.ipv6 if family == 6 else server.endpoint.ipv4
        wanted: dict[str, str | None] = {
            "VPN_SERVICE_PROVIDER": "custom",
            "VPN_TYPE": "wireguard",
            "WIREGUARD_PRIVATE_KEY": self.client.private,
            "WIREGUARD_PUBLIC_KEY": server.keys.public,
            "WIREGUARD_PRESHARED_KEY": server.preshared_key,
            "WIREGUARD_ADDRESSES": f"{CLIENT.ipv4}/32,{CLIENT.ipv6}/128",
            "WIREGUARD_ENDPOINT_IP": endpoint,
            "WIREGUARD_ENDPOINT_PORT": str(server.port),
            "WIREGUARD_IMPLEMENTATION": os.environ.get("LAB_WIREGUARD", "auto"),
            "FIREWALL_BACKEND": os.environ.get("LAB_FIREWALL"),
            "DNS_ADDRESS": INSIDE.ipv4,
            "DNS_SERVER": "off",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "json",
        }
        wanted |= changes
        return {name: value for name, value in wanted.items() if value is not None}

    def wg_quick(self, server: Server | None = None, *, extra: str = "") -> str:
        """Return the text of a wg0.conf for `server`; `extra` lines end its [Interface]."""
        server = server or self.server
        return (
            f"[Interface]\nPrivateKey = {self.client.private}\n"
            f"Address = {CLIENT.ipv4}/32, {CLIENT.ipv6}/128\nDNS = {INSIDE.ipv4}\n{extra}\n"
            f"[Peer]\nPublicKey = {server.keys.public}\nPresharedKey = {server.preshared_key}\n"
            f"AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {server.endpoint.ipv4}:{server.port}\n"
            "PersistentKeepalive = 25\n"
        )

    # -- the process ---------------------------------------------------------------------------

    def start(self, environment: Mapping[str, str] | None = None) -> "Gateway":
        """Start the process with `environment` (by default `env()`) and nothing else in it."""
        if self.running:
            raise LabError("the gateway runs already")
        self._reap()
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(PROJECT),
            "HOME": "/root",
            "LANG": "C.UTF-8",
        } | dict(self.env() if environment is None else environment)
        self._log.touch()
        self._log_start = self._log.stat().st_size
        self.started_at = time.monotonic()
        self._child = self._household.start(
            self.container.command(self.argv), "gateway", env=self.environment, log=self._log
        )
        return self

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.exit_code is None

    @property
    def pid(self) -> int:
        """Process id of the gateway itself, as the machine sees it."""
        if self._child is None:
            raise LabError("the gateway has not been started")
        if not self.container.pid_namespace:
            return self._child.pid
        parent = self._child.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found = eventually(
            lambda: children.read_text(encoding="ascii").split(),
            timeout=2,
            what="the gateway's process",
            interval=0.001,
        )
        return int(found[0])

    def signal(self, number: int) -> None:
        """Send a signal to the gateway itself."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 10) -> int:
        """Wait until the process ends by itself and return its exit code.

        A PID 1 that was killed leaves 1: unshare cannot die of SIGKILL by itself.
        """
        if self._child is None:
            raise LabError("the gateway has not been started")
        return self._child.wait(timeout)

    def stop(self, timeout: float = 10) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """Kill the gateway itself with SIGKILL, and wait until wireguard-go has ended with it.

        The namespace and the workloads stay. A packet that enters the tunnel before wireguard-go
        has ended gets no answer.
        """
        tunnels = [pid for pid in self._children() if _command(pid) == "wireguard-go"]
        self.signal(signal.SIGKILL)
        self.wait()
        eventually(
            lambda: not any(map(_has_threads, tunnels)),
            timeout=5,
            what="the end of wireguard-go",
        )

    def _children(self) -> list[int]:
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text(encoding="ascii").split()]

    def restart(self, environment: Mapping[str, str] | None = None) -> "Gateway":
        """Start again in the same namespace and mounts, in the same environment by default."""
        if self.running:
            self.stop()
        return self.start(self.environment if environment is None else environment)

    def close(self) -> None:
        """End the process and give up the mounts."""
        if self.running:
            self.signal(signal.SIGKILL)
        self._reap()
        self.container.close()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.close()

    # -- what it says --------------------------------------------------------------------------

    def status(self, path: str = "/healthz", timeout: float = 2) -> Health:
        """Ask the health server; no answer is code 0, a body that is not JSON is empty."""
        connection = http.client.HTTPConnection(*HEALTH)
        try:
            connection.sock = self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
            connection.sock.settimeout(timeout * PATIENCE)
            connection.sock.connect(HEALTH)
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return Health()
        finally:
            connection.close()
        try:
            return Health(answer.status, json.loads(text))
        except ValueError:
            return Health(answer.status)

    def wait_healthy(self, timeout: float = 10) -> Health:
        """Wait for code 200 and return the answer; LabError with the log otherwise."""
        return self._wait(lambda health: health.code == 200, "healthy", timeout)

    def wait_unhealthy(self, timeout: float = 30) -> Health:
        """Wait for code 503 and return the answer."""
        return self._wait(lambda health: health.code == 503, "unhealthy", timeout)

    def wait_for_state(self, state: str, timeout: float = 10) -> Health:
        """Wait until health names this state (locked, connecting, connected, stopping)."""
        return self._wait(lambda health: health.state == state.lower(), state, timeout)

    def _wait(self, judge: Any, what: str, timeout: float) -> Health:
        last = Health()

        def attempt() -> Health | None:
            nonlocal last
            if not self.running:
                raise LabError(f"the gateway ended before it was {what}:\n{self.logs()}")
            last = self.status()
            return last if judge(last) else None

        try:
            return eventually(attempt, timeout=timeout, what=what, interval=0.02)
        except LabError as err:
            raise LabError(f"{err}; last answer {last}; log:\n{self.logs()}") from err

    def logs(self, *, all_starts: bool = False) -> str:
        """Return what the process wrote since its last start, or since the first."""
        text = self._log.read_bytes() if self._log.exists() else b""
        return text[0 if all_starts else self._log_start :].decode(errors="replace")

    def events(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the log events since the last start, filtered by fields (event="...")."""
        found = []
        for line in self.logs().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and all(event.get(k) == v for k, v in wanted.items()):
                found.append(event)
        return found

    # -- others in the container ---------------------------------------------------------------

    def execute(self, *argv: str, stdin: str = "") -> tuple[int, str]:
        """Run a command in the container, as `docker exec`; return exit code and all output."""
        main = self.pid if self.container.pid_namespace else 0
        return self.container.execute(argv, main=main, env=self.environment, stdin=stdin)

    def write(self, path: str, text: str, mode: int = 0o600) -> None:
        """Write a file under /run/secrets or /config of the container."""
        self.container.write(path, text, mode)

    def resolv_conf(self) -> str:
        """Return the container's resolv.conf, which its workloads share."""
        return self.container.resolv_conf()

    def workload(self, **options: Any) -> Workload:
        """Return a workload that shares the container's resolv.conf, as an attached one does."""
        return self.container.workload(**options)


def _has_threads(pid: int) -> bool:
    """Return whether any thread of a process still runs: the last one closes what it has open.

    The first thread may be a zombie before the others have ended.
    """
    try:
        return bool(_command(pid)) or len(os.listdir(f"/proc/{pid}/task")) > 1  # noqa: PTH208
    except (FileNotFoundError, ProcessLookupError):
        return False


def _command(pid: int) -> str:
    """Return the command name of a process; empty once it has ended, or is a zombie."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return "" if fields["State"].startswith("Z") else fields["Name"]
