"""A machine in memory with a clock of its own, for tests of the supervisor: hours pass in no time.

Every call to a part is a line in one transcript, in order, and any of them can be made to fail.
"""

import asyncio
import random
import selectors
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from gateway.daemon.inbox import Inbox
from gateway.daemon.loop import Supervisor
from gateway.daemon.ports import Parts
from gateway.errors import NetworkError
from gateway.model import (
    Address,
    Config,
    Errand,
    Interface,
    KeyRequest,
    Login,
    ServerList,
    Times,
    Tunnel,
)
from gateway.model.lease import Connection
from gateway.policy.actions import SendProbe
from gateway.policy.events import NotReloaded, Reloaded
from gateway.policy.facts import Facts, PeerStatus, TunnelStatus
from gateway.policy.firewall import closed
from gateway.policy.limits import Limit
from gateway.policy.probing import Outcome, Probe
from gateway.policy.reload import Answer
from gateway.policy.report import Status
from gateway.policy.resolvers import Fault, Finding
from gateway.policy.rules import Accept, Chain, Family, Ruleset
from gateway.policy.states import Query, Transfer
from gateway.policy.tables import Routing
from gateway.policy.timing import Timing
from gateway.services.health.board import confirmed
from gateway.system.inside import USUAL
from gateway.system.probe import THOROUGH
from tests.fakes.firewall import FakeFirewall
from tests.fakes.tunnel import FakeTunnel
from tests.scenarios import ONE_UPLINK

REHANDSHAKE = 120.0
PACKET = 128
DNS_SERVER = ip_address("172.18.0.53")


class Clock:
    """Seconds that pass when everybody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class _Selector(selectors.DefaultSelector):
    """Does not wait, but lets the clock go on by as much."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            # The loop rounds what it waits for down to its resolution.
            self._clock.now += max(timeout or 0.0, 1e-6)
        return found


class _Loop(asyncio.SelectorEventLoop):
    """An event loop on the clock of the test."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._test_clock = clock

    def time(self) -> float:
        return self._test_clock.now


class World:
    """What the supervisor meets, and what a test does to it.

    `alive` are the servers that answer, by address; `others` run in the supervisor's task group;
    `fails` says what the next calls of a part raise; `building` is how many seconds the interface
    takes, `looking_up` how many the answer to a name, `fetching` a list, after which `listed` is
    what reading the configuration again comes to; `loss` is the share of packets lost each way;
    from `lost_port`, or every port if it is 0, nothing arrives at the server; `pushed` is one
    packet a second from it that nothing asked for; it `server_echoes` if it answers an echo;
    `path` is the largest packet that arrives, None if echoes of no size are answered;
    `kept_down` are links that stay down; `breaks_at` makes the call of that number fail, with
    `breaks_with` as its errno. `transcript` has every call.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.timing = Timing()
        self.clock = Clock()
        self.alive = {str(e.address) for t in config.tunnels for e in t.endpoints}
        self.facts = ONE_UPLINK
        self.names: dict[str, tuple[Address, ...]] = {}
        self.resolver_answers = True
        self.faults: dict[Address, Fault] = {}
        self.traffic = True
        self.building = 0.05
        self.looking_up = 0.5
        self.fetching = 0.5
        self.listed: Config | Answer | None = None
        self.loss = 0.0
        self.pushed = False
        self.probed: set[Probe] = set()
        self.lost_port: int | None = None
        self.server_echoes = True
        self.path: int | None = 65535
        self._chance = random.Random(20)  # noqa: S311 - the same losses in each run
        self.fails: dict[str, list[BaseException | None]] = {}
        self.breaks_at: int | None = None
        self.breaks_with: int | None = None
        self.calls = 0
        self.transcript: list[str] = []
        self.published: list[Status] = []
        self.still_up: tuple[str, ...] = ()
        self.links_are_down = False
        self.kept_down: tuple[str, ...] = ()
        self.adopted: list[Config] = []
        self.remembered: list[tuple[Times, tuple[str, ...]]] = []
        self.limits: tuple[Limit, ...] = ()
        self.firewall = _Firewall(self)
        self.tunnel = _Tunnel(self)
        self.network = _Network(self)
        self.supervisor: Supervisor
        self.inbox: Inbox
        self.carried: list[Connection | None] = []
        self.others: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}

    def note(self, what: str, detail: str = "") -> None:
        """Note a call to what never raises."""
        self.calls += 1
        self.transcript.append(f"{what} {detail}".strip())

    def call(self, what: str, detail: str = "") -> None:
        """Note a call, and raise what the test planned."""
        self.note(what, detail)
        planned = self.fails.get(what)
        if planned and (error := planned.pop(0)):
            raise error
        if self.calls == self.breaks_at:
            raise NetworkError("broken on purpose", what, self.breaks_with)

    def run(self, *steps: tuple[float, Callable[[], None]], until: float) -> None:
        """Run the supervisor, do each of `steps` at its second, and stop it at `until`."""

        async def live() -> None:
            self.inbox = Inbox()
            self.supervisor = Supervisor(self.config, self._parts(), self.timing, self.inbox)
            loop = asyncio.get_running_loop()
            for second, action in steps:
                loop.call_later(second, action)
            loop.call_later(until, self.supervisor.stop)
            await self.supervisor.run(**{name: run() for name, run in self.others.items()})

        with asyncio.Runner(loop_factory=lambda: _Loop(self.clock)) as runner:
            runner.run(live())

    @property
    def tunnel_now(self) -> Tunnel:
        """The tunnel that carries traffic."""
        connection = self.carried[-1]
        assert connection is not None
        return connection.tunnel

    def tunnel_lost(self) -> None:
        """Do what `ip link del wg0` does."""
        self.tunnel.standing = None
        self.supervisor.kernel_changed()

    def since(self, second: float) -> float:
        """Return the time on the clock at `second` of the run."""
        return 1000.0 + second

    def at(self, second: float) -> Status:
        """Return what was published last before `second` of the run."""
        return [status for status in self.published if status.at <= self.since(second)][-1]

    def _parts(self) -> Parts:
        return Parts(
            firewall=self.firewall,
            guard=None,
            tunnel=self.tunnel,
            network=self.network,
            resolver=_Resolver(self),
            provider=_Provider(self),
            hooks=_Hooks(self),
            probe=self._probe,
            not_answering=self._not_answering,
            echo=self._echo,
            write_resolver=self._write_resolver,
            publish=self._publish,
            confirm=self._confirm,
            clock=self.clock,
            read_again=self._read_again,
            remember=lambda times, servers: self.remembered.append((times, servers)),
            adopt=self._adopt,
            carries=self.carried.append,
        )

    def _read_again(self) -> None:
        self.note("read again")
        now = self.clock()
        if isinstance(self.listed, Config):
            self.supervisor.read_again(Reloaded(self.listed, now))
        elif self.listed is not None:
            self.supervisor.read_again(NotReloaded(self.listed))

    def _adopt(self, config: Config) -> tuple[Limit, ...]:
        self.adopted.append(config)
        return self.limits

    def arrives(self) -> bool:
        """Throw the dice for one packet on one way."""
        return self._chance.random() >= self.loss

    async def _write_resolver(self, tunnel: Tunnel) -> None:
        resolvers = tunnel.dns
        self.call("resolv.conf", f"nameserver {resolvers[-1]}" if resolvers else "search .")

    async def _probe(self, action: SendProbe) -> Outcome:
        self.note("thorough probe" if action.thorough else "probe", str(action.probe.address))
        self.probed |= {it for it in (action.probe, action.echo) if it}
        if planned := self.fails.get("probe"):
            raise planned.pop() or RuntimeError
        await asyncio.sleep(0.001)  # a sample that begins with a probe does not count it
        pace = THOROUGH if action.thorough else USUAL
        reached = False
        for number in range(1, pace.tries + 1):
            if self._is_answered(answers=self.resolver_answers):
                await asyncio.sleep(0.05)
                counted = (0, 0) if action.thorough else (number, number - 1)
                return Outcome(True, True, *counted)
            if action.echo and not reached:
                reached = self._is_answered(answers=self.server_echoes)
            await asyncio.sleep(pace.interval)
            if reached and number * pace.interval >= USUAL.tries * USUAL.interval:
                break
        return Outcome(False, reached, *((0, 0) if action.thorough else (pace.tries,) * 2))

    def _is_answered(self, *, answers: bool) -> bool:
        """Send one packet into the tunnel, and return whether it comes back."""
        self.tunnel.asked += 1
        if not (self.tunnel.is_reached and self.arrives() and answers and self.arrives()):
            return False
        self.tunnel.answered += 1
        return True

    async def _not_answering(self, resolvers: tuple[Address, ...]) -> tuple[Finding, ...]:
        self.call("ask resolvers", " ".join(map(str, resolvers)))
        await asyncio.sleep(0.05)
        return tuple(Finding(it, self.faults[it]) for it in resolvers if it in self.faults)

    async def _echo(self, probe: Probe, sizes: tuple[int, ...]) -> int | None:
        self.call("echo", f"{probe.address} {max(sizes)}")
        path = self.path if self.tunnel.is_reached and self.path is not None else 0
        arrived = [size for size in sizes if size <= path]
        self.tunnel.asked += len(sizes)
        self.tunnel.answered += len(arrived)
        slow = max(sizes) not in arrived
        await asyncio.sleep(USUAL.tries * USUAL.interval if slow else 0.05)
        return max(arrived, default=None)

    def _confirm(self) -> None:
        self._publish(confirmed(self.published[-1], self.clock.now))

    def _publish(self, status: Status) -> None:
        if not self.published or status.state != self.published[-1].state:
            self.note("published", status.state)
        self.published.append(status)
        is_open = self.firewall.summary.startswith("open") and not self.links_are_down
        may_be_open = {"connected", "connecting", "stopping"}  # red comes before the locked rules
        assert not is_open or status.state in may_be_open, self.transcript[-5:]
        assert not status.healthy or is_open


def summary(ruleset: Ruleset) -> str:
    """Return briefly what the IPv4 rules let out: where to, and whether through the tunnel."""
    rules = [
        rule
        for rule in ruleset.of(Family.IPV4).get(Chain.OUTPUT, ())
        if isinstance(rule.verdict, Accept) and rule.mark is not None
    ]
    holes = " ".join(str(rule.destination).removesuffix("/32") for rule in rules)
    by_tunnel = any(r.out_interface == "wg0" for r in ruleset.of(Family.IPV4).get(Chain.OUTPUT, ()))
    return f"open {holes}" if by_tunnel else f"only {holes}" if holes else "closed"


class _Firewall(FakeFirewall):
    def __init__(self, world: World) -> None:
        super().__init__()
        super().apply(closed())
        self._world = world
        self.summary = "closed"

    def apply(self, ruleset: Ruleset) -> None:
        self._world.call("rules", summary(ruleset))
        super().apply(ruleset)
        self.summary = summary(ruleset)


class _Network:
    """Links and routes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.drifted: tuple[str, ...] = ()

    def facts(self) -> Facts:
        self._world.call("facts")
        return self._world.facts

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        del addresses
        self._world.call("fault of", name)
        return "" if self._world.tunnel.standing is not None else f"{name} was set down"

    def carried(self, name: str) -> bytes:
        self._world.call("carried", name)
        return self._world.tunnel.carried

    def set_mtu(self, name: str, mtu: int) -> None:
        self._world.call("mtu", f"{name} {mtu}")
        self._world.tunnel.mtu = mtu

    def prepare(self, uplink: str) -> None:
        self._world.call("prepare", uplink)

    def apply_routing(self, wanted: Routing) -> None:
        by_tunnel = any(route.interface == "wg0" for route in wanted.routes)
        self._world.call("routes", "by the tunnel" if by_tunnel else "nowhere")
        self.drifted = ()

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        del wanted
        self._world.call("routing drift")
        return self.drifted

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        del uplink
        return ()

    def shut_unnameable(self) -> tuple[str, ...]:
        return ()

    def shut_shared(self) -> tuple[str, ...]:
        return self._world.kept_down

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...]:
        del only
        self._world.call("links down")
        self._world.links_are_down = not self._world.still_up
        return self._world.still_up

    def reopen(self) -> tuple[str, ...]:
        self._world.call("links up")
        assert self._world.firewall.summary == "closed"
        self._world.links_are_down = False
        return ()


class _Tunnel(FakeTunnel):
    """A tunnel with traffic in it, one packet a second each way while its server lives."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._at = self._begun = 0.0
        self._handshake: float | None = None
        self._sent = self._received = 0
        self.asked = self.answered = 0

    @property
    def is_alive(self) -> bool:
        return self.standing is not None and any(
            str(endpoint.address) in self._world.alive for endpoint in self.standing.endpoints
        )

    @property
    def is_reached(self) -> bool:
        """Whether what is sent arrives."""
        lost = self._world.lost_port
        return self.is_alive and lost != 0 and lost != self._require().listen_port

    @property
    def carried(self) -> bytes:
        """What the interface has sent and received, as far as a status would show it now."""
        sent = self._sent + (self._packets + self.asked) * PACKET
        return f"{sent} {self._received + self.answered * PACKET}".encode()

    @property
    def _packets(self) -> int:
        """The packets of workloads since the last status."""
        return int(self._world.clock.now) - int(self._at) if self._world.traffic else 0

    async def up(self, tunnel: Tunnel, mtu: int) -> None:
        self._world.call("up", str(tunnel.endpoints[0]) if tunnel.peers else "")
        await asyncio.sleep(self._world.building)
        await super().up(tunnel, mtu)

    async def configure(self, tunnel: Tunnel) -> float:
        self._world.call("configure", str(tunnel.endpoints[0]))
        return await super().configure(tunnel)

    async def down(self) -> None:
        self._world.call("down")
        await super().down()

    async def status(self) -> TunnelStatus:
        self._world.call("status")
        tunnel, now, packets = self._require(), self._world.clock.now, self._packets
        seconds = int(now) - int(self._at)
        self._at = now
        self._sent += (packets + self.asked) * PACKET
        ends_at = self._begun + self.delays.get(str(tunnel.endpoints[0]), 0.0)
        if self.is_alive and self._world.pushed and self._handshake:
            self._received += seconds * PACKET
        if self.is_reached and now >= ends_at:
            if self._handshake is None or now - self._handshake >= REHANDSHAKE:
                self._handshake = now if self._handshake else ends_at
            back = sum(self._world.arrives() and self._world.arrives() for _ in range(packets))
            self._received += back * PACKET
        self._received += self.answered * PACKET  # before it died, if it has
        self.asked = self.answered = 0
        key = tunnel.peers[0].public_key
        peer = PeerStatus(key, tunnel.endpoints[0], self._handshake, self._received, self._sent)
        return TunnelStatus(tunnel.listen_port, tunnel.fwmark, (peer,))

    def _begin(self, tunnel: Tunnel) -> None:
        super()._begin(tunnel)
        self._handshake, self._sent, self._received = None, 0, 0
        self._at = self._begun = self._world.clock.now

    def _begun_at(self, _tunnel: Tunnel) -> float:
        return self._begun


class _Resolver:
    """Answers from `names`, in `looking_up` seconds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, tuple[Address, ...]] = {}

    def open(self) -> Query:
        self._world.call("open")
        return Query(DNS_SERVER, 40000, 7)

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        self._world.call("ask", " ".join(names))
        await asyncio.sleep(self._world.looking_up)
        self._known |= {
            name: self._world.names[name] for name in names if name in self._world.names
        }
        if missing := [name for name in names if name not in self._known]:
            raise NetworkError("no address", ", ".join(missing))
        return {name: self._known[name] for name in names}


class _Provider:
    """Does an errand in `fetching` seconds; what the configuration is then is `listed`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def open(self, errand: Errand, server: Address) -> Transfer:
        self._world.call(f"open {NAMES[type(errand)]}", str(server))
        return Transfer(server, errand.port, 40001, 8)

    async def fetch(self, errand: Errand) -> None:
        self._world.call("fetch" if isinstance(errand, ServerList) else "request", errand.provider)
        await asyncio.sleep(self._world.fetching)
        for name in ("fetched", errand.host):
            planned = self._world.fails.get(name)
            if planned and (error := planned.pop(0)):
                raise error


NAMES: dict[type[Errand], str] = {ServerList: "list", Login: "login", KeyRequest: "key"}


class _Hooks:
    """Notes the commands."""

    def __init__(self, world: World) -> None:
        self._world = world

    def up(self) -> None:
        self._world.note("VPN_UP_COMMAND")

    def down(self) -> None:
        self._world.note("VPN_DOWN_COMMAND")

    async def finish(self) -> None:
        self._world.note("finish")


def other_uplink(facts: Facts) -> Facts:
    """Return `facts` with another address on the first uplink."""
    first = facts.uplinks[0]
    moved = replace(
        first,
        addresses=tuple(type(a)(f"{a.ip + 1}/{a.network.prefixlen}") for a in first.addresses),
    )
    return replace(facts, uplinks=(moved, *facts.uplinks[1:]))
