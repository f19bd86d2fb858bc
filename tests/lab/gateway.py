"""The gateway under test, as a container engine would run it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, Child, Household, eventually, run
from tests.lab.server import CLIENT, INSIDE, Keys, Server
from tests.lab.workload import DOCKER_CAPABILITIES, Workload, with_capabilities

PROJECT = Path(__file__).resolve().parents[2]
HEALTH = ("127.0.0.1", 9999)
GATEWAY_CAPABILITIES = (*DOCKER_CAPABILITIES, "net_admin")
"""Docker's default set with `cap_add: NET_ADMIN`."""

# The mounts of a container: a /run and a resolv.conf of its own, and a /sys of its namespace.
# They outlive the process, because a container that restarts in place keeps them too.
_HOLD = """
set -e
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/wireguard /run/secrets
resolv=$(readlink -m /etc/resolv.conf)
mkdir -p "$(dirname "$resolv")"
[ -e "$resolv" ] || : > "$resolv"
mount --bind "$1" "$resolv"
eval "$2"
echo ready
exec sleep infinity
"""
_READ_ONLY_PROC_SYS = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
_WITHOUT_TUN = "mount -t tmpfs tmpfs /dev/net"


@dataclass(frozen=True)
class Health:
    """One answer of the health server; code 0 when nobody answers."""

    code: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """State that the body names, in lower case."""
        return str(self.body.get("state", "")).lower()


class Gateway:
    """One gateway container: a mount namespace that stays, and a process that comes and goes."""

    def __init__(
        self,
        namespace: Namespace,
        household: Household,
        server: Server,
        client: Keys,
        *,
        argv: Sequence[str] = (sys.executable, "-m", "gateway"),
        capabilities: Sequence[str] | None = GATEWAY_CAPABILITIES,
        pid_namespace: bool = False,
        read_only_proc_sys: bool = False,
        without_tun: bool = False,
        resolv_conf: str = "search example.test\nnameserver 127.0.0.11\noptions ndots:0\n",
    ) -> None:
        """Make the container's mounts; `start` starts the process.

        `pid_namespace` makes the process PID 1 of a namespace that dies with it (killed, its
        exit code is then 1, because unshare cannot die of SIGKILL by itself);
        `read_only_proc_sys` and `without_tun` take away what Docker takes away;
        `capabilities` None leaves all of them.
        """
        self.namespace = namespace
        self._household = household
        self.server = server
        self.client = client
        self.argv = list(argv)
        self.environment: dict[str, str] = {}
        self.started_at = 0.0
        self._capabilities = capabilities
        self._pid_namespace = pid_namespace
        self._read_only_proc_sys = read_only_proc_sys
        self._log = household.file("gateway.log")
        self._log_start = 0
        self._child: Child | None = None
        resolver = household.file("resolv.conf")
        resolver.write_text(resolv_conf, encoding="utf-8")
        taken_away = [
            *([_READ_ONLY_PROC_SYS] if read_only_proc_sys else []),
            *([_WITHOUT_TUN] if without_tun else []),
        ]
        hold = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", _HOLD, "hold"]
        self._holder = household.start(
            namespace.command([*hold, str(resolver), " && ".join(taken_away)]), "holder"
        )
        self._holder.wait_for("ready")
        self.root = Path(f"/proc/{self._holder.pid}/root")

    # -- environment ---------------------------------------------------------------------------

    def env(
        self, server: Server | None = None, *, family: int = 4, **changes: str | None
    ) -> dict[str, str]:
        """Return the variables for a tunnel to `server` by its endpoint of this IP family.

        `changes` replace variables, or remove those given as None. LAB_WIREGUARD and
        LAB_FIREWALL choose the backends.
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

    # -- files ---------------------------------------------------------------------------------

    def write(self, path: str, text: str, mode: int = 0o600) -> None:
        """Write a file under /run/secrets or /config of the container."""
        if path.startswith("/config/") and not self._has_config():
            Path("/config").mkdir(exist_ok=True)  # the only thing left behind: a mount point
            self._enter("mount", "-t", "tmpfs", "tmpfs", "/config")
        file = self.root / path.lstrip("/")
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def resolv_conf(self) -> str:
        """Return the container's resolv.conf, which its workloads share."""
        return (self.root / "etc/resolv.conf").read_text(encoding="utf-8")

    def _has_config(self) -> bool:
        mounts = Path(f"/proc/{self._holder.pid}/mounts").read_text(encoding="utf-8")
        return " /config " in mounts

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
            self._command(), "gateway", env=self.environment, log=self._log
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
        if not self._pid_namespace:
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
        """Wait until the process ends by itself and return its exit code."""
        if self._child is None:
            raise LabError("the gateway has not been started")
        return self._child.wait(timeout)

    def stop(self, timeout: float = 10) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """Kill the gateway itself with SIGKILL; the namespace and the workloads stay."""
        self.signal(signal.SIGKILL)
        self.wait()

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
        self._holder.close()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.close()

    def _command(self) -> list[str]:
        argv = [*with_capabilities(self._capabilities), *self.argv]
        if self._pid_namespace:
            if self._read_only_proc_sys:  # --mount-proc brings a writable one
                argv = ["sh", "-c", f'{_READ_ONLY_PROC_SYS} && exec "$@"', "sh", *argv]
            argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *argv]
        return self._entered(argv)

    def _entered(self, argv: Sequence[str]) -> list[str]:
        mounts = f"--mount=/proc/{self._holder.pid}/ns/mnt"
        return ["nsenter", f"--net={self.namespace.path}", mounts, "--", *argv]

    def _enter(self, *argv: str) -> str:
        return run(self._entered(argv))

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
        command = self._entered([*with_capabilities(self._capabilities), *argv])
        if self._pid_namespace:
            own = f"/proc/{self.pid}/ns"
            command = [word for word in command if not word.startswith("--mount=")]
            command[1:1] = [f"--pid={own}/pid", f"--mount={own}/mnt"]
        done = subprocess.run(
            command,
            input=stdin,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60 * PATIENCE,
        )
        return done.returncode, done.stdout

    def workload(self, **options: Any) -> Workload:
        """Return a workload that shares the container's resolv.conf, as an attached one does."""
        mounts = Path(f"/proc/{self._holder.pid}/ns/mnt")
        return Workload(self.namespace, self._household, mounts=mounts, **options)
