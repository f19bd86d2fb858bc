"""What builds of wireguard-go cost: python -m scripts.benching.userspace NAME=PROGRAM ...

Two namespaces, TCP at full speed through a tunnel, in both directions. The first build runs at the
far end for all of them; counted is the processor time of the near end's process alone. The builds
take turns, because the machine does other work as well. Needs root.
"""

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab.namespace import Namespace, connect
from tests.lab.process import Child, Household
from tests.lab.server import Keys, wait_for_socket

TURNS, SECONDS = 16, 2.0
GIB, BLOCK = 1 << 30, 1 << 17
PORT, SINK = 51820, 7001
NEAR, FAR = 0, 1


class Pair:
    """Both ends of a tunnel between two namespaces, each with a build of wireguard-go."""

    def __init__(self, number: int, programs: Sequence[str], stack: ExitStack) -> None:
        """Start the two programs, the near end's first; `stack` ends them."""
        name = f"wgb{os.getpid()}x{number}"
        household = Household(name)
        stack.callback(household.close)
        self.ends = [Namespace(f"{name}-{end}") for end in (NEAR, FAR)]
        for namespace in self.ends:
            namespace.create()
            stack.callback(namespace.delete)
        connect(self.ends[NEAR], "eth0", self.ends[FAR], "eth0")
        keys = [Keys.generate(), Keys.generate()]
        self._daemons: list[Child] = []
        for end, (namespace, program) in enumerate(zip(self.ends, programs, strict=True)):
            link, other = f"wgb{number}{end}", 1 - end
            namespace.ip(f"addr add 192.0.2.{end + 1}/24 dev eth0", "link set eth0 up")
            daemon = household.start(namespace.command([program, "-f", link]), f"daemon{end}")
            self._daemons.append(daemon)
            wait_for_socket(link)
            private = household.file(f"key{end}")
            private.write_text(keys[end].private, "ascii")
            namespace.run(
                *("wg", "set", link, "listen-port", str(PORT), "private-key", str(private)),
                *("peer", keys[other].public, "endpoint", f"192.0.2.{other + 1}:{PORT}"),
                *("allowed-ips", "10.64.0.0/24"),
            )
            namespace.ip(
                f"addr add 10.64.0.{end + 1}/24 dev {link}", f"link set {link} up mtu 1420"
            )

    def cpu(self) -> float:
        """Return the seconds of a processor that the near end's process has used."""
        fields = Path(f"/proc/{self._daemons[NEAR].pid}/stat").read_text("ascii").rpartition(")")
        used = fields[2].split()[11:13]
        return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

    def carry(self, sender: int) -> tuple[float, float]:
        """Send for some seconds from one end; return seconds of a processor and MiB/s, per GiB."""
        with self._connected(sender) as (source, sink):
            counted = threading.Thread(target=drain, args=(sink, received := []))
            counted.start()
            began, before, block = time.monotonic(), self.cpu(), bytes(BLOCK)
            while time.monotonic() - began < SECONDS:
                source.sendall(block)
            source.shutdown(socket.SHUT_WR)
            counted.join()
            took, used = time.monotonic() - began, self.cpu() - before
        size = sum(received)
        return used / size * GIB, size / took / (1 << 20)

    @contextmanager
    def _connected(self, sender: int) -> Iterator[tuple[socket.socket, socket.socket]]:
        receiver = 1 - sender
        with self.ends[receiver].socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((f"10.64.0.{receiver + 1}", SINK))
            listening.listen()
            with self.ends[sender].socket(socket.AF_INET, socket.SOCK_STREAM) as source:
                source.settimeout(20)
                source.connect(listening.getsockname())
                sink, _ = listening.accept()
                with sink:
                    sink.settimeout(20)
                    yield source, sink


def drain(sink: socket.socket, received: list[int]) -> None:
    """Note how much each read returned, until the end."""
    while read := len(sink.recv(BLOCK)):
        received.append(read)


def main(arguments: Sequence[str]) -> None:
    """Measure each build, and print the medians."""
    builds = dict(argument.split("=", 1) for argument in arguments)
    if not builds:
        raise SystemExit("name the builds: python -m scripts.benching.userspace NAME=PROGRAM ...")
    far = next(iter(builds.values()))
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        pairs = {
            name: Pair(number, (program, far), stack)
            for number, (name, program) in enumerate(builds.items())
        }
        for turn in range(TURNS + 1):
            for name, pair in pairs.items():
                for sender in (NEAR, FAR):
                    carried = pair.carry(sender)
                    if turn:  # the first warms up
                        found.setdefault((name, sender), []).append(carried)
    for (name, sender), results in found.items():
        cpu, speed = (statistics.median(values) for values in zip(*results, strict=True))
        lowest = min(used for used, _ in results)
        print(
            f"{name:16} {'sends' if sender == NEAR else 'receives':9}"
            f"{cpu:6.2f} s of a processor per GiB (lowest {lowest:.2f}), {speed:5.0f} MiB/s"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
