"""A lab in which one break after the other is done to a gateway under a flood, and judged.

What is judged? Each way out (UDP over IPv4, over IPv6, whole frames from a packet socket) is tried
by a socket of our own: once it has been refused, no frame that went this way may be seen outside
any more, until the namespace is opened by hand for the next first start. Nothing else may be seen
from the moment all ways were refused. A gateway that met a failure and ends, or that does not
become healthy, must have closed all of them. What is left of it is killed, orphans go on, and the
next start in the same namespace has to end healthy.
"""

import contextlib
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.breaking.watch import BEGIN, CONNECT, FAIL, START, Break, Step, Watch
from tests.lab.errors import LabError
from tests.lab.frames import Frame, addressed_to, is_multicast_report
from tests.lab.hosts import dns
from tests.lab.internet import INTERNET
from tests.lab.probes import ethernet, udp_packet
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.witness import commands, open_everything, wait_for_flood

RECONNECT, STOP = "reconnect", "stop"
LATER = (RECONNECT, STOP)
PHASES = (BEGIN, START, CONNECT, *LATER)

WAYS = ("udp4", "udp6", "packet4")
RATE = 100
"""Packets a second of each kind of the flood."""
DISCARD = 9
TABLE = "51820"
"""The tunnel's routing table."""
RESOLV_CONF = "nameserver 127.0.0.11\n"
"""What an engine writes for each start."""
HOLES = {"FIREWALL_OUTBOUND_SUBNETS": "192.168.77.0/24,fd77::/64", "FIREWALL_INPUT_PORTS": "8080"}
RESOLVER, NAME = "2001:db8:100::53", "vpn.example"
BY_NAME = {"WIREGUARD_ENDPOINT_IP": NAME, "WIREGUARD_ENDPOINT_RESOLVER": RESOLVER}
SETTLE = 0.5 * PATIENCE
"""Seconds that a closed gateway gets after a failure to end or to become healthy."""
SLOWEST = 4.0 * PATIENCE
"""Seconds that it may take to close, or to stop: the tools of iptables wait for their lock file."""
REACHED = 6.0 * PATIENCE
"""Seconds within which a step is reached."""
HEALTHY = 30.0
"""Seconds within which a start is healthy, on a machine that is busy with other labs."""


@dataclass(frozen=True)
class Case:
    """What is broken: a gateway, or `gateway hold` in a namespace that a gateway takes over.

    `variables` are the gateway's in addition to the tunnel's: connection marks and holes are broken
    in one case, and the look-up of a name through its hole in the other.
    """

    name: str
    family: int
    """That of the server's endpoint."""
    firewall: str
    variables: Mapping[str, str]
    holds: bool = False

    def __str__(self) -> str:
        """Name the case."""
        return "gateway hold" if self.holds else f"an IPv{self.family} endpoint"

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases in which something is broken."""
        return (BEGIN, START, CONNECT) if self.holds else PHASES


CASES = {
    case.name: case
    for case in (
        Case("ipv4", 4, "auto", HOLES),
        Case("ipv6", 6, "nftables", BY_NAME),
        Case("hold", 4, "auto", {}, holds=True),
    )
}

CONNECTED = '"new": "connected"'
LOCKED = '"event": "locked"'


@dataclass
class Result:
    """What came of one break."""

    wanted: Break
    outcome: str = "not reached"
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the step was reached, and so broken."""
        return self.outcome != "not reached"


class Outlets:
    """A socket in the namespace for each way out."""

    def __init__(self, lab: Lab) -> None:
        inside = lab.gateway_namespace.socket
        uplink, (host4, host6) = lab.uplink, INTERNET[0]
        self._udp4 = inside(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp6 = inside(socket.AF_INET6, socket.SOCK_DGRAM)
        self._link = inside(socket.AF_PACKET, socket.SOCK_RAW)
        source = uplink.gateway.ipv4
        frame = ethernet(uplink.router_mac, source) + udp_packet(
            source, host4, DISCARD, DISCARD, b"outlet packet4 "
        )
        self._send: dict[str, Callable[[], int]] = {
            "udp4": lambda: self._udp4.sendto(b"outlet udp4 ", (host4, DISCARD)),
            "udp6": lambda: self._udp6.sendto(b"outlet udp6 ", (host6, DISCARD)),
            "packet4": lambda: self._link.sendto(frame, (uplink.name, 0)),
        }
        for outlet in (self._udp4, self._udp6, self._link):
            outlet.setblocking(False)

    def closed(self, way: str) -> bool:
        """Return whether the kernel refuses what is sent this way."""
        try:
            self._send[way]()
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Close the sockets."""
        for outlet in (self._udp4, self._udp6, self._link):
            outlet.close()


class Bench:
    """One lab, one gateway, one flood; a context manager."""

    def __init__(self, case: Case, meanwhile: Callable[[Lab], None] | None = None) -> None:
        """`meanwhile` is done by another program at the moment of each break."""
        self._case = case
        self._meanwhile = meanwhile
        self._stack = contextlib.ExitStack()
        self.closed_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        """Build the lab, and start the flood."""
        self._lab = self._stack.enter_context(Lab())
        self._serve_name()
        self._gateway = self._lab.gateway()
        self._outlets = Outlets(self._lab)
        self._stack.callback(self._outlets.close)
        self._watched = False
        self.ways = WAYS
        self._lab.workload.flood(*self.ways, rate=RATE)
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything."""
        self._stack.close()

    def _serve_name(self) -> None:
        """Serve the endpoint's name from a resolver outside."""
        self._lab.internet_namespace.ip(f"addr add {RESOLVER}/128 dev lo")
        self._lab.internet.serve(dns(RESOLVER, AAAA=self._lab.server.endpoint.ipv6))

    # -- counting ------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Return the steps of each phase, in order, as a run without any break shows them."""
        self._begin(BEGIN)
        eventually(lambda: self._is_up(1), timeout=HEALTHY, what="the end of the start")
        steps = self._counted()
        if not self._case.holds:
            steps += self._steps_after()
        return [replace(step, files=self._watch.files(step.logged)) for step in steps]

    def _steps_after(self) -> list[Step]:
        self._watch.arm(RECONNECT)
        self._lab.operator.run("ip", "link", "del", "wg0")
        self._wait_connected(2)
        steps = self._counted()
        self._watch.arm(STOP)
        self._gateway.stop()
        return steps + self._counted()

    def _counted(self) -> list[Step]:
        self._watch.disarm()
        self._watch.raise_error()
        steps = list(self._watch.steps)
        self._watch.steps.clear()
        return steps

    # -- breaking ------------------------------------------------------------------------------

    def do(self, wanted: Break) -> Result:
        """Break one step, then start again; a LabError goes into the result."""
        result = Result(wanted)
        try:
            self._break(wanted, result)
            self._watch.raise_error()
        except LabError as err:
            result.problems.append(str(err))
        finally:
            self._watch.disarm()
        try:
            self._start_again(result)
        except LabError as err:
            result.problems.append(f"the next start: {err}")
        result.problems += [f"left: {frame}" for frame in self._leaks()[:5]]
        if result.problems:
            self.open()
        return result

    def _break(self, wanted: Break, result: Result) -> None:
        phase = wanted.step.phase
        gateway = self._gateway
        if phase in LATER:
            if not self._watched or not gateway.running:
                if gateway.running:
                    gateway.kill()
                self._begin(None)
                self._wait_connected()
            self._watch.steps.clear()
            self._watch.arm(phase, wanted)
            if phase == RECONNECT:
                # On a busy machine the gateway may be rebuilding it just now.
                self._lab.operator.run("ip", "link", "del", "wg0", check=False)
            else:
                gateway.signal(signal.SIGTERM)
        else:
            if gateway.running:
                gateway.kill()
            if phase != CONNECT or self._case.holds:
                self.open()
            self._begin(BEGIN, wanted)
        connections = 2 if phase == RECONNECT else 1
        self._await_outcome(wanted, result, connections)

    def _await_outcome(self, wanted: Break, result: Result, connections: int) -> None:
        """Wait until the step is broken and has had its consequences; see what they are."""
        gateway, watch = self._gateway, self._watch

        def settled() -> bool:
            self._note_closed()
            if not gateway.running:
                return True
            if self._is_up(connections) and wanted.step.phase != STOP:
                return True
            broken = watch.broken_at
            since = 0.0 if broken is None else time.monotonic() - broken
            unfinished = wanted.step.phase == STOP or len(self.closed_at) < len(self.ways)
            return since > (SLOWEST if unfinished else SETTLE)

        with contextlib.suppress(LabError):
            eventually(settled, timeout=REACHED, what="an end", interval=0.005)
        if watch.broken_at is None:
            return
        is_up = self._is_up(connections)
        result.outcome = "ended" if not gateway.running else "kept running" if is_up else "closed"
        if wanted.how == FAIL:
            self._judge_failure(wanted.step, result)
        if gateway.running:
            gateway.kill()
        self._note_closed()

    def _judge_failure(self, step: Step, result: Result) -> None:
        """Note what is wrong: it closes, or says by its exit code that it did not begin."""
        gateway = self._gateway
        if result.outcome == "ended":
            code = gateway.wait()
            if code == 0 and step.phase != STOP:
                result.problems.append("ended with exit code 0")
            if step.phase == BEGIN:
                return
        elif step.phase == STOP:
            result.problems.append("does not stop")
        if result.outcome != "kept running":
            result.problems += [
                f"left open: {way}" for way in self.ways if way not in self.closed_at
            ]

    def _start_again(self, result: Result) -> None:
        if self._gateway.running:
            self._gateway.kill()
        self._begin(None, watched=result.wanted.step.phase in LATER)
        self._wait_for(LOCKED)
        if self._links_were_down():
            result.outcome += ", links down"
        self._wait_connected()
        if self._gateway.status().code != 200:
            self._gateway.wait_healthy(HEALTHY)
        twins = Counter(commands(self._lab))
        if twins["wireguard-go"] > 1:
            result.problems.append("the next start: two processes of wireguard-go")
        self._note_closed_by_word()

    # -- the gateway ---------------------------------------------------------------------------

    def _begin(
        self, phase: str | None, wanted: Break | None = None, *, watched: bool = True
    ) -> None:
        """Start the gateway, under a new watch or (which is faster) without any.

        With a phase to watch but nothing to break, it reports where in its code it is.
        """
        gateway = self._gateway
        gateway.argv = [sys.executable, "-m", "gateway"]
        (gateway.container.root / "etc/resolv.conf").write_text(RESOLV_CONF, encoding="ascii")
        (gateway.container.root / "var/lib/portcullis/resolvers").unlink(missing_ok=True)
        self._watched = watched
        if watched:
            if self._case.holds:
                gateway.argv.append("hold")
            self._watch = Watch(self._lab.household.directory, self._at_the_break)
            counting = phase is not None and wanted is None
            watch = self._watch
            program = gateway.argv[2:]
            gateway.argv = watch.locating(program) if counting else watch.command(gateway.argv)
            if phase:
                watch.arm(phase, wanted)
        gateway.start(gateway.env(family=self._case.family, **self._case.variables))

    def _is_up(self, connections: int) -> bool:
        """Return whether it has connected so often, or only waits if it holds."""
        gateway = self._gateway
        if not self._case.holds:
            return gateway.logs().count(CONNECTED) >= connections
        with contextlib.suppress(OSError):
            return b"waiting.py" in Path(f"/proc/{gateway.pid}/cmdline").read_bytes()
        return False

    def _wait_connected(self, times: int = 1) -> None:
        self._wait_for(CONNECTED, times)

    def _wait_for(self, text: str, times: int = 1) -> None:
        gateway = self._gateway

        def seen() -> bool:
            if not gateway.running:
                raise LabError(f"ended with {gateway.wait()}: {gateway.logs()[-600:]}")
            return gateway.logs().count(text) >= times

        try:
            eventually(seen, timeout=HEALTHY, what=f"{text} in the log", interval=0.01)
        except LabError as err:
            raise LabError(f"{err}: {gateway.logs()[-1500:]}") from err

    # -- the namespace -------------------------------------------------------------------------

    def open(self) -> None:
        """Open the namespace by hand, and see the flood outside: the positive control."""
        if self._gateway.running:
            self._gateway.kill()
        self.closed_at = {}
        self._links_were_down()
        open_everything(self._lab)
        for family in ("-4", "-6"):  # so that the next start is a first one
            self._lab.operator.run("ip", family, "route", "flush", "table", TABLE, check=False)
        self._lab.operator.run("ip", "link", "set", "lo", "alias", "")
        wait_for_flood(self._lab, *self.ways, since=time.monotonic())

    def _links_were_down(self) -> bool:
        """Set the uplink up again if the gateway has set it down, as an engine would."""
        uplink, namespace = self._lab.uplink, self._lab.gateway_namespace
        if "state DOWN" not in namespace.run("ip", "link", "show", uplink.name):
            return False
        namespace.ip(
            f"link set {uplink.name} up",
            f"addr replace {uplink.gateway.ipv6}/64 dev {uplink.name} nodad",
            f"route replace default via {uplink.router.ipv4}",
            f"route replace default via {uplink.router.ipv6}",
        )
        return True

    def _at_the_break(self) -> None:
        self._note_closed()
        if self._meanwhile:
            self._meanwhile(self._lab)

    def _note_closed(self) -> None:
        """Find out which ways out have been closed since the last look."""
        for way in self.ways:
            if way not in self.closed_at and self._outlets.closed(way):
                self.closed_at[way] = time.monotonic()

    def _note_closed_by_word(self) -> None:
        """Count as closed what is: a connected gateway's own UDP leaves through the tunnel."""
        for way in self.ways:
            self.closed_at.setdefault(way, time.monotonic())

    def _leaks(self) -> list[Frame]:
        if not self.closed_at:
            return []
        all_closed = max(self.closed_at.values()) if len(self.closed_at) == len(self.ways) else None
        allowed = [addressed_to(RESOLVER)] if self._case.variables == BY_NAME else []
        found = []
        for frame in self._lab.leaks(min(self.closed_at.values()), allowed=allowed):
            way = next((way for way in self.ways if f" {way} ".encode() in frame.raw), None)
            since = self.closed_at.get(way) if way else all_closed
            if since is not None and frame.at > since and not is_multicast_report(frame):
                found.append(frame)
        return found


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Count what was broken, by phase, kind, variant and outcome."""
    done = [result for result in results if result.done]
    return {
        "phase": Counter(result.wanted.step.phase for result in done),
        "kind": Counter(result.wanted.step.kind for result in done),
        "made by": Counter(result.wanted.step.role for result in done),
        "what became of it": Counter(result.wanted.how for result in done),
        "what the gateway did": Counter(result.outcome for result in done),
    }
