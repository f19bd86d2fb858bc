"""The subjects of the tunnel contract: each backend with a WireGuard server within its reach."""

import asyncio
import base64
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.model import EVERYTHING, INTERFACE, Endpoint, Peer, Secret, Tunnel
from gateway.policy.facts import TunnelStatus
from gateway.tunnel import kernel
from tests.fakes.tunnel import FakeTunnel
from tests.lab.namespace import Namespace, connect
from tests.lab.process import PATIENCE, Household, run
from tests.lab.server import Keys, wait_for_socket

PROJECT = Path(__file__).resolve().parents[1]
PORT = 51820
ADDRESSES = (ip_interface("10.64.0.2/32"), ip_interface("fd64::2/128"))


class Subject(Protocol):
    """A backend under test, called from outside its loop, and what the world can do to it."""

    tunnel: Tunnel
    other: Tunnel

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the backend; return or raise what it did."""

    def delete_interface(self) -> None:
        """Do what someone else does with `ip link del`."""

    def take_port(self, port: int) -> Any:
        """Occupy a UDP port while the context lasts."""

    def close(self) -> None:
        """Remove everything."""


def wait_for_handshake(subject: Subject, not_at: float | None = None) -> TunnelStatus:
    """Return the status once there was a handshake, at another time than `not_at`.

    Ten seconds: WireGuard repeats after five, and a server refuses two in the same 17 ms.
    """
    end = time.monotonic() + 10 * PATIENCE
    while True:
        status: TunnelStatus = subject.call("status")
        if status.peers[0].handshake not in {None, not_at}:
            return status
        assert time.monotonic() < end, f"no handshake: {status}"
        time.sleep(0.01)


class InMemory:
    """The fake."""

    def __init__(self) -> None:
        """Make up keys."""
        self.fake = FakeTunnel()
        keys = [base64.b64encode(bytes([n] * 32)).decode() for n in range(1, 4)]
        peers = [Peer(key, Endpoint(ip_address("192.0.2.1"), PORT), EVERYTHING) for key in keys[1:]]
        self.tunnel = Tunnel(Secret(keys[0]), ADDRESSES, (peers[0],), fwmark=0xCA6C)
        self.other = Tunnel(Secret(keys[0]), ADDRESSES, (peers[1],), fwmark=0xCA6C)

    def call(self, method: str, *arguments: Any) -> Any:
        """Run the method to its end."""
        return asyncio.run(getattr(self.fake, method)(*arguments))

    def delete_interface(self) -> None:
        """As another program does: the fake is not called."""
        self.fake.standing = None

    @contextmanager
    def take_port(self, port: int) -> Iterator[None]:
        """Occupy a port."""
        self.fake.taken.add(port)
        yield
        self.fake.taken.discard(port)

    def close(self) -> None:
        """There is nothing to remove."""


class Real:
    """A backend of the kernel or of wireguard-go, joined to a server in another namespace."""

    _number = 0

    def __init__(self, implementation: str, *, elsewhere: bool = False) -> None:
        """Build both namespaces, start the server and the process that drives the backend.

        With `elsewhere` that process is in a third namespace, the `caller`.
        """
        Real._number += 1
        name = f"pct{os.getpid()}x{Real._number}"
        self.household = Household(name)
        self.own, self.far = Namespace(name), Namespace(f"{name}far")
        self.caller = Namespace(f"{name}caller") if elsewhere else self.own
        for namespace in {self.own, self.far, self.caller}:
            namespace.create()
        connect(self.own, "eth0", self.far, "eth0")
        for namespace, last in ((self.own, 2), (self.far, 1)):
            namespace.ip("link set eth0 up", f"addr add 192.0.2.{last}/24 dev eth0")
            namespace.ip(f"addr add 2001:db8::{last}/64 dev eth0 nodad")
        self.client = Keys.generate()
        preshared = Secret(run(["wg", "genpsk"]).strip())
        servers = [self._server(f"{name}s{n}", implementation, preshared) for n in range(2)]
        self.tunnel, self.other = (
            Tunnel(
                Secret(self.client.private),
                ADDRESSES,
                (Peer(*server, EVERYTHING, preshared),),
                fwmark=0xCA6C,
            )
            for server in servers
        )
        self.log = self.household.file("driver.log")
        self._descriptor = os.open(self.own.path, os.O_RDONLY) if elsewhere else None
        self._driver = self._start_driver()
        assert self.call("choose", implementation, self._descriptor) == implementation

    def _server(self, name: str, implementation: str, preshared: Secret) -> tuple[str, Endpoint]:
        """Start a server and return its key and endpoint: the first by IPv4, the second by IPv6."""
        keys, first = Keys.generate(), name.endswith("0")
        if implementation == "kernelspace":
            self.far.ip(f"link add {name} type wireguard")
        else:
            self.household.start(self.far.command(["wireguard-go", "-f", name]), name)
            wait_for_socket(name)
        self.far.run(
            "wg", "setconf", name, "/dev/stdin",
            stdin=f"[Interface]\nPrivateKey={keys.private}\nListenPort={PORT + (not first)}\n"
            f"[Peer]\nPublicKey={self.client.public}\nPresharedKey={preshared.reveal()}\n"
            "AllowedIPs=10.64.0.2/32,fd64::2/128\n",
        )  # fmt: skip
        self.far.ip(f"link set {name} up")
        address = ip_address("192.0.2.1" if first else "2001:db8::1")
        return keys.public, Endpoint(address, PORT + (not first))

    def _start_driver(self) -> subprocess.Popen[bytes]:
        """Start the driver with a /run of its own, where the sockets of wireguard-go are."""
        mounts = 'mount -t tmpfs tmpfs /run && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mounts, "sh"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                self.caller.command([*command, sys.executable, "-m", "tests.tunnel_driver"]),
                cwd=PROJECT,
                pass_fds=() if self._descriptor is None else (self._descriptor,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def call(self, method: str, *arguments: Any) -> Any:
        """Have the driver call the method."""
        request = pickle.dumps((method, arguments))
        outlet, inlet = self._driver.stdin, self._driver.stdout
        assert outlet
        assert inlet
        outlet.write(len(request).to_bytes(4, "big") + request)
        outlet.flush()
        size = int.from_bytes(inlet.read(4), "big")
        assert size, self.log.read_text("utf-8")
        result, failure = pickle.loads(inlet.read(size))  # noqa: S301 - our own driver
        if failure:
            kind, words, attributes = failure
            err: GatewayError = kind.__new__(kind, *words)
            vars(err).update(attributes)
            raise err
        return result

    @property
    def pid(self) -> int:
        """The process that the backend is in."""
        return self._driver.pid

    def call_tool(self, *argv: str) -> str:
        """Run a program where the tunnel and wireguard-go's socket are, so that wg(8) finds it."""
        where = (f"--target={self.pid}", "--mount", f"--net={self.own.path}")
        return run(["nsenter", *where, "--", *argv])

    def children(self) -> list[int]:
        """Return the processes that the driver has started."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [int(pid) for pid in listed.split()]

    def delete_interface(self) -> None:
        """Remove the interface from outside."""
        self.own.ip(f"link del {INTERFACE}")

    @contextmanager
    def take_port(self, port: int) -> Iterator[None]:
        """Occupy a port of the gateway's namespace, on one address."""
        with self.own.socket(2, 2) as bound:
            bound.bind(("127.0.0.1", port))
            yield

    def kill_driver(self) -> None:
        """Do what `kill -9` does to a gateway, and wait until it is gone."""
        self._driver.kill()
        self._driver.wait()

    def close(self) -> None:
        """End the processes and remove the namespaces."""
        self._driver.kill()
        self._driver.wait()
        for pipe in (self._driver.stdin, self._driver.stdout):
            if pipe:
                pipe.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self.household.close()
        for namespace in {self.own, self.far, self.caller}:
            namespace.delete()


def real_implementations() -> list[str]:
    """Return the implementations that this machine has, or the one that LAB_WIREGUARD names.

    A kernel without WireGuard has nothing to test: its tests are not collected rather than skipped.
    They run in the guest of tests/kernel.
    """
    wanted = os.environ.get("LAB_WIREGUARD", "auto")
    if wanted != "auto":
        return [wanted]
    return ["userspace", *(["kernelspace"] if kernel.available() else [])]
