"""Every kind of packet that a workload sends, as probes: name, arguments, what an open lab says."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab import probes
from tests.lab.frames import TCP, Frame
from tests.lab.internet import INTERNET
from tests.lab.process import PATIENCE
from tests.lab.workload import Workload

HOST4, HOST6 = INTERNET[0]
OWN4, OWN6 = "172.30.0.2", "fd30::2"
"""The gateway's addresses on eth0."""

KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("tcp", {"host": HOST4}, "connected"),
    ("tcp", {"host": HOST6}, "connected"),
    ("tcp", {"host": f"::ffff:{HOST4}"}, "connected"),
    ("tcp", {"host": HOST4, "port": 4444}, "refused"),
    ("udp", {"host": HOST4}, "answered"),
    ("udp", {"host": HOST6}, "answered"),
    ("udp", {"host": f"::ffff:{HOST4}"}, "answered"),
    ("udp", {"host": HOST4, "port": 4444}, "refused"),
    ("udp", {"host": HOST4, "device": "eth0"}, "answered"),
    ("udp", {"host": HOST6, "device": "eth0"}, "answered"),
    ("udp", {"host": HOST4, "source": OWN4}, "answered"),
    ("udp", {"host": HOST6, "source": OWN6}, "answered"),
    ("udp", {"host": HOST4, "mark": 0xCA6C}, "answered"),
    ("udp", {"host": HOST6, "mark": 0xCA6C}, "answered"),
    ("udp", {"host": HOST4, "mark": 0xCA6C, "source_port": 51820}, "answered"),
    ("http", {"host": HOST4}, "answered"),
    ("http", {"host": HOST6}, "answered"),
    ("ping", {"host": HOST4}, "answered"),
    ("ping", {"host": HOST6}, "answered"),
    *(
        ("raw", {"host": host, "protocol": protocol}, "sent")
        for host in (HOST4, HOST6)
        for protocol in (47, 132, 50, 253)
    ),
    ("forged", {"host": HOST4, "source": "10.64.0.2"}, "sent"),
    ("forged", {"host": HOST6, "source": "fd64::2"}, "sent"),
    ("fragments", {"host": HOST4, "source": OWN4}, "sent"),
    ("fragments", {"host": HOST6, "source": OWN6}, "sent"),
    ("options", {"host": HOST4}, "answered"),
    ("options", {"host": HOST6}, "answered"),
    ("broadcast", {"device": "eth0"}, "sent"),
    ("broadcast", {"host": "172.30.0.255"}, "sent"),
    ("multicast", {}, "sent"),
    ("multicast", {"host": "ff02::fb"}, "sent"),
    ("packet", {"host": HOST4, "source": OWN4}, "sent"),
    ("packet", {"host": HOST6, "source": OWN6}, "sent"),
    ("packet", {"host": HOST4, "source": OWN4, "bypass": 1}, "sent"),
    ("packet", {"host": HOST6, "source": OWN6, "bypass": 1}, "sent"),
]

BARRAGE = str(Path(__file__).with_name("barrage.py"))
FIRST_PORT = 20000
WITHOUT_MARKER = {"tcp", "http"}


class Barrage:
    """Every kind at once, unbound and bound to a device; a capture distinguishes each.

    By a marker of its own, and where there is no room for one by a destination port of its own.
    """

    def __init__(self, marker: str, device: str) -> None:
        """Prepare all probes, with `marker` in all that can carry one."""
        self._marker = marker
        self._probes = [
            self._marked_probe(number, name, arguments)
            for number, (name, arguments) in enumerate(each_way(device))
        ]
        self.names = [f"{name} {arguments}" for name, arguments in each_way(device)]

    def send(self, workload: Workload) -> dict[str, dict[str, Any]]:
        """Send all of them from `workload`; return what came of each."""
        argv = (sys.executable, "-I", "-S", BARRAGE)
        asked = [
            [name, {key: str(value) for key, value in given.items()}]
            for name, given in self._probes
        ]
        answers = json.loads(workload.run(*argv, stdin=json.dumps(asked)))
        return dict(zip(self.names, answers, strict=True))

    def seen(self, frames: list[Frame]) -> set[str]:
        """Return the names of the probes that are among `frames`."""
        return {
            name
            for name, (kind, given) in zip(self.names, self._probes, strict=True)
            if any(self._is(kind, given, frame) for frame in frames)
        }

    def _marked_probe(
        self, number: int, name: str, arguments: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        apart = (
            {"port": FIRST_PORT + number}
            if name in WITHOUT_MARKER
            else {"marker": f"{self._marker}.{number}."}
        )
        return name, {"timeout": 0.3 * PATIENCE} | arguments | apart

    def _is(self, name: str, given: dict[str, Any], frame: Frame) -> bool:
        if name in WITHOUT_MARKER:
            return (frame.protocol, frame.destination_port) == (TCP, given["port"])
        return given["marker"].encode() in frame.raw


def each_way(device: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every kind as it is, and those that can be bound bound to `device` too."""
    for name, arguments, _ in KINDS:
        yield name, arguments
        if "device" in probes.PROBES[name].__annotations__ and "device" not in arguments:
            yield name, arguments | {"device": device}
