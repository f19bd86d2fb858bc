"""A gateway that several tests share, and how to take its tunnel away and give it back."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from gateway.firewall.nft.guard import Guard
from gateway.policy.limits import limits_of_guard
from tests.lab.frames import Frame
from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE
from tests.lab.server import CLIENT
from tests.lab.topology import Lab
from tests.lab.workload import Workload

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

INTERFACE = "wg0"

OWN4, OWN6 = "172.30.0.2", "fd30::2"
"""The gateway's addresses on eth0."""


@contextmanager
def connecting(lab: Lab, gateway: Gateway) -> Iterator[None]:
    """Hold the gateway in `connecting`: its interface is lost and its server silent.

    Afterwards the server answers, and the gateway is connected again.
    """
    lab.server.cut()
    lose_tunnel(lab)
    gateway.wait_for_state("connecting")
    try:
        yield
    finally:
        answer_again(lab, gateway)


def answer_again(lab: Lab, gateway: Gateway) -> None:
    """Let the server answer again, and wait until the gateway is connected.

    With a new interface the next handshake is tried at once, and not after five seconds.
    """
    lab.server.restore()
    lose_tunnel(lab)
    gateway.wait_healthy(20)


def lose_tunnel(lab: Lab) -> None:
    """Delete the tunnel's interface, where there is one."""
    lab.operator.run("ip", "link", "del", INTERFACE, check=False)


INWARD = 7
"""A mark of the server's: packets that have it go into the tunnel, wherever they are addressed."""


def in_tunnel(lab: Lab) -> Workload:
    """Return a place to ask from: the server, where what is marked INWARD enters the tunnel.

    WireGuard there lets the gateway have every address, so that anything can be sent to it.
    """
    server, link = lab.server.namespace, lab.server.interface
    server.run("wg", "set", link, "peer", lab.client.public, "allowed-ips", "0.0.0.0/0,::/0")
    for family in ("-4", "-6"):
        server.run("ip", family, "route", "replace", "default", "dev", link, "table", "7")
        # The same rule a second time is an error, and no harm.
        rule = ("priority", "7", "fwmark", str(INWARD), "table", "7")
        server.run("ip", family, "rule", "add", *rule, check=False)
    return Workload(lab.server.namespace, lab.household, capabilities=None)


def from_tunnel_address(frame: Frame) -> bool:
    """Return whether the frame, of ARP and neighbour discovery too, has the tunnel's address."""
    return bool({frame.source, frame.target} & set(CLIENT))


def frames_to(lab: Lab, address: str, since: float) -> list[Frame]:
    """Return the frames to `address` that came out by any uplink from `since` on."""
    found = [frame for uplink in lab.uplinks for frame in uplink.capture.frames(since)]
    return [frame for frame in found if frame.destination == address]


def shown_marks(lab: Lab) -> list[int]:
    """Return the firewall marks that `ip rule` shows to every workload."""
    rules = lab.workload.run("ip", "rule") + lab.workload.run("ip", "-6", "rule")
    return sorted({int(mark, 16) for mark in re.findall(r"fwmark (0x[0-9a-f]+)", rules)})


SALVO = str(Path(__file__).parents[1] / "lab" / "salvo.py")


def send_frames(workload: Workload, frames: Sequence[Mapping[str, object]]) -> list[str]:
    """Send frames from packet sockets, as salvo.py describes them; return the kernel's answers."""
    argv = (sys.executable, "-I", "-S", SALVO)
    return list(json.loads(workload.run(*argv, stdin=json.dumps(list(frames)))))


def together(ask: Callable[[Asked], Answer], asked: Iterable[Asked]) -> dict[Asked, Answer]:
    """Call `ask` with each of `asked`, side by side, because silence takes its time to hear."""
    items = list(asked)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(items, pool.map(ask, items), strict=True))


def unique(name: str) -> str:
    """Return a marker that no other probe has."""
    return f"{name}-{time.monotonic_ns()}"


def got_through(workload: Workload, kind: str, **arguments: object) -> bool:
    """Probe, and say whether anybody answered.

    A refused TCP socket that is bound to a device waits: the refusal arrives on loopback, and
    it hears its device alone. So bound probes do not wait long.
    """
    wait = {"timeout": 0.3 * PATIENCE} if "device" in arguments else {}
    return workload.probe(kind, **(arguments | wait)).result in {"answered", "connected"}


def limits_here(lab: Lab) -> list[dict[str, str]]:
    """Return the limits in health on this kernel, which must have the egress guard."""
    guard = lab.gateway_namespace.inside(Guard.find)
    found = limits_of_guard(routed=guard.routed, in_advance=guard.in_advance)
    return [asdict(limit) for limit in found]
