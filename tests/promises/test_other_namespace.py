"""Each adapter acts on the namespace that it is given, and not on the caller's.

Two namespaces that look the same: the subject is called in `here` and given `there`. Each test
looks at both. The positive control is the same call with the caller's own namespace.
"""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.errors import NetworkError
from gateway.firewall import Firewall
from gateway.firewall.choose import choose, take_over
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.guard import DeviceGuard, Guard, GuardRules
from gateway.firewall.nft.program import Nft
from gateway.firewall.xtables import legacy
from gateway.firewall.xtables.firewall import IptablesFirewall
from gateway.model import INTERFACE, Backend
from gateway.policy.actions import SendProbe
from gateway.policy.firewall import closed
from gateway.policy.probing import Probe, ProbeProtocol
from gateway.policy.routing import LOCKED
from gateway.system import conntrack, process
from gateway.system.claim import NAME, claim
from gateway.system.exclusive import ExclusiveLinks
from gateway.system.link_down import links_down
from gateway.system.link_settings import DeviceSetting, ipv6_usable
from gateway.system.links import Links
from gateway.system.lookup import DNS_PORT, EndpointLookup
from gateway.system.namespace import Namespace as System
from gateway.system.netns import OWN, Netns
from gateway.system.probe import probe
from gateway.system.sockets import udp_sockets
from gateway.system.unplug import Unplug
from gateway.system.watch import watch
from gateway.system.xdp import Queues
from tests.lab import xdp
from tests.lab.namespace import Namespace, connect
from tests.tunnels import Real, real_implementations, wait_for_handshake

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parents[2]
MTU = 1380


class Pair:
    """Two namespaces with the same links; `there` is the one that the adapters are given."""

    def __init__(self) -> None:
        """Make both, with an uplink `eth0`, a `spare` one, and a stand-in for the tunnel."""
        self.here, self.there = (Namespace(f"pcon{os.getpid()}{end}") for end in "ab")
        for namespace in (self.here, self.there):
            namespace.create()
            namespace.ip(
                "link add eth0 index 2 type veth peer name far0 index 20",
                "link add spare index 5 type veth peer name far1 index 21",
                f"tuntap add {INTERFACE} mode tun",
                *(f"link set {name} up" for name in ("eth0", "far0", "spare", "far1", INTERFACE)),
            )
        self.netns = Netns.at(self.there.path)

    def call(self, act: Callable[[], T]) -> T:
        """Run `act` in `here`."""
        return self.here.inside(act)

    def close(self) -> None:
        """Remove both."""
        self.netns.close()
        self.here.delete()
        self.there.delete()

    def where(self, is_so: Callable[[Namespace], bool]) -> str:
        """Return in which of the two something is so: `here`, `there`, both or none."""
        both = {"here": self.here, "there": self.there}
        return " ".join(name for name, namespace in both.items() if is_so(namespace))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return two namespaces for each test."""
    made = Pair()
    yield made
    made.close()


def shows(*words: str, text: str) -> Callable[[Namespace], bool]:
    """Return whether a command in a namespace prints `text`."""
    return lambda namespace: text in namespace.run(*words, check=False)


def test_a_namespace_is_given_by_path_process_or_descriptor(pair: Pair) -> None:
    """And kept: it stays the same when the path is removed. Others are refused."""
    pair.there.ip("link add only index 77 type veth peer name other")
    holder = subprocess.Popen(pair.there.command(["sleep", "60"]))
    try:
        descriptor = os.open(pair.there.path, os.O_RDONLY)
        # nsenter has entered by the time that its program runs.
        while Path(f"/proc/{holder.pid}/comm").read_text("ascii") != "sleep\n":
            pass
        made = [Netns.of_process(holder.pid), Netns.of_descriptor(descriptor, "there"), pair.netns]
        os.close(descriptor)
        assert [netns.index_of("only") for netns in made] == [77, 77, 77]
        assert "only" not in pair.call(OWN.links).values()
    finally:
        holder.kill()
        holder.wait()
    for path, problem in (
        ("/proc/self/ns/mnt", "not a network namespace"),
        ("/proc/self/status", "not a namespace"),
        ("/run/netns/nosuch", "No such file"),
    ):
        with pytest.raises(NetworkError, match=problem):
            Netns.at(path)


def test_the_thread_comes_back_whatever_happens(pair: Pair) -> None:
    """From an error too; and inside, the gateway's own namespace is still its own."""
    seen: list[Path] = []

    def look() -> None:
        seen.append(Path("/proc/thread-self/ns/net").readlink())

    def fail() -> None:
        with pair.netns.entered():
            look()
            with OWN.entered():
                look()
                with pair.netns.entered():
                    look()
            look()
            raise LookupError

    def visit() -> None:
        look()
        with pytest.raises(LookupError):
            fail()
        look()

    pair.call(visit)
    home, away = seen[:2]
    assert home != away
    assert seen == [home, away, home, away, away, home]


def test_the_process_ends_when_a_thread_cannot_come_back(pair: Pair) -> None:
    """What it did next could be done to the wrong namespace. Refused: without CAP_SYS_ADMIN."""
    script = f"""
import ctypes, sys
from gateway.system.netns import Netns
libc = ctypes.CDLL(None, use_errno=True)
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
netns = Netns.at({str(pair.there.path)!r})
try:
    with netns.entered():
        if "drop" in sys.argv:
            assert not libc.capget(header, data)
            data[0] &= ~(1 << 21)
            assert not libc.capset(header, data)
finally:
    print("continued", flush=True)
"""
    command = pair.here.command([sys.executable, "-c", script])
    control = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (control.returncode, control.stdout) == (0, "continued\n"), control.stderr
    done = subprocess.run(
        [*command, "drop"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Operation not permitted; the rules stay as they are" in done.stderr


def test_the_own_namespace_takes_no_privilege(pair: Pair) -> None:
    """No thread enters it. Control: another one is refused without CAP_SYS_ADMIN."""
    script = f"""
import socket
from gateway.system.netns import OWN, Netns
print(sorted(OWN.links().values()))
try:
    Netns.at({str(pair.there.path)!r}).socket(socket.AF_INET, socket.SOCK_DGRAM)
except PermissionError as err:
    print(err)
"""
    command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", script]
    done = subprocess.run(
        pair.here.command(command), cwd=PROJECT, capture_output=True, text=True, check=False
    )
    links, refusal = done.stdout.splitlines()
    assert "eth0" in links
    assert "Operation not permitted" in refusal


def test_many_threads_each_start_programs_in_their_own_namespace(pair: Pair) -> None:
    """A child takes the namespace of the thread that starts it, so threads do not disturb it."""
    pair.there.ip("link add only type veth peer name other")

    def listed(netns: Netns) -> bool:
        return "only" in process.run(["ip", "-o", "link"], netns=netns)

    def run_all() -> list[bool]:
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(listed, [pair.netns, OWN] * 40))

    assert pair.call(run_all) == [True, False] * 40


def test_links_addresses_settings_and_routes(pair: Pair) -> None:
    """Everything over rtnetlink."""
    address = ip_interface("10.64.0.7/32")
    arp = "/proc/sys/net/ipv4/conf/eth0/arp_ignore"
    for netns, expected in ((pair.netns, "there"), (OWN, "here there")):
        links = Links(INTERFACE, netns)
        system = System(links)
        pair.call(partial(links.add_addresses, INTERFACE, [address]))
        pair.call(partial(links.set_mtu, "eth0", 1300))
        pair.call(partial(links.set_device, "eth0", {DeviceSetting.ARP_IGNORE: 1}))
        pair.call(partial(system.apply_routing, LOCKED))
        assert pair.call(partial(system.routing_drift, LOCKED)) == ()
        assert pair.call(system.facts).uplinks[0].mtu == 1300
        assert pair.where(shows("ip", "addr", text="10.64.0.7")) == expected
        assert pair.where(shows("ip", "link", "show", "eth0", text="mtu 1300")) == expected
        assert pair.where(shows("ip", "-6", "rule", text="proto 112")) == expected
        assert pair.where(shows("ip", "rule", text="proto 112")) == expected
        assert pair.where(shows("cat", arp, text="1")) == expected
    pair.call(lambda: Links(INTERFACE, pair.netns).delete_link(INTERFACE))
    assert pair.where(shows("ip", "link", text=INTERFACE)) == "here"


def test_a_route_that_is_surplus_is_named_by_its_own_links(pair: Pair) -> None:
    """The same index may be another link's in the caller's namespace."""
    pair.call(lambda: System(Links(INTERFACE, pair.netns)).apply_routing(LOCKED))
    pair.there.ip("link add only index 77 type veth peer name other", "link set only up")
    table = LOCKED.routes[0].table
    pair.there.ip(f"route add 10.1.0.0/16 dev only table {table}")
    drift = pair.call(lambda: System(Links(INTERFACE, pair.netns)).routing_drift(LOCKED))
    assert "dev only" in next(line for line in drift if "10.1.0.0/16" in line)


def test_ipv6_is_switched_on_for_a_link(pair: Pair) -> None:
    """/proc/sys/net is that of the namespace in which it is opened."""
    setting = f"ipv6/conf/{INTERFACE}/disable_ipv6"
    for namespace in (pair.here, pair.there):
        namespace.sysctl(setting, 1)
    assert pair.call(lambda: ipv6_usable(pair.netns))
    pair.call(
        lambda: Links(INTERFACE, pair.netns).add_addresses(INTERFACE, [ip_interface("fd64::7")])
    )
    assert pair.where(shows("cat", f"/proc/sys/net/{setting}", text="0")) == "there"
    assert pair.where(shows("ip", "addr", text="fd64::7")) == "there"


def test_what_a_namespace_cannot_have_is_its_own_question(pair: Pair) -> None:
    """IPv6 that is switched off here, read-only as in a container, is not off there."""
    script = f"""
from gateway.system.netns import OWN, Netns
from gateway.system.link_settings import ipv6_usable
print(ipv6_usable(OWN), ipv6_usable(Netns.at({str(pair.there.path)!r})))
"""
    pair.here.sysctl("ipv6/conf/default/disable_ipv6", 1)
    read_only = (
        'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"'
    )
    command = ["unshare", "--mount", "sh", "-c", read_only, "sh", sys.executable, "-c", script]
    done = subprocess.run(
        pair.here.command(command), cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False True\n", done.stderr


def test_flows_are_forgotten(pair: Pair) -> None:
    """And those of the caller are not."""
    with ExitStack() as stack:
        for namespace in (pair.here, pair.there):
            namespace.nft(
                "table inet t { chain c { type filter hook output priority 0; ct state new; }; }"
            )
            one = stack.enter_context(namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
            one.bind(("127.0.0.1", 7007))
            one.sendto(b"flow", ("127.0.0.1", 7007))
        flows = shows("conntrack", "-L", text="7007")
        assert pair.where(flows) == "here there", "control"
        pair.call(lambda: conntrack.flush(pair.netns))
        assert pair.where(flows) == "here"
        pair.call(conntrack.flush)
        assert pair.where(flows) == ""


def test_changes_are_heard_of(pair: Pair) -> None:
    """Those of the namespace, and not those of the caller's."""

    async def heard(change: Callable[[], None]) -> bool:
        changes = asyncio.Queue[None]()
        watching = asyncio.create_task(watch(lambda: changes.put_nowait(None), pair.netns))
        try:
            for _ in range(2):  # what it says in the beginning
                await changes.get()
            await asyncio.to_thread(change)
            async with asyncio.timeout(0.5):
                await changes.get()
        except TimeoutError:
            return False
        finally:
            watching.cancel()
        return True

    def run(namespace: Namespace) -> bool:
        return asyncio.run(heard(lambda: namespace.ip("link set spare down")))

    assert pair.call(lambda: run(pair.there))
    assert not pair.call(lambda: run(pair.here))


def test_queues_are_held_and_links_set_down(pair: Pair) -> None:
    """AF_XDP sockets, and the switch for the links."""

    def takes(namespace: Namespace) -> bool:
        def take() -> bool:
            try:
                xdp.Sender(xdp.Job("eth0", b"", 0)).close()
            except OSError as err:
                return err.errno != errno.EBUSY
            return True

        return namespace.inside(take)

    assert pair.where(takes) == "here there", "control"
    unplug = pair.call(lambda: Unplug(pair.netns))
    links = pair.call(
        lambda: ExclusiveLinks(Queues(pair.netns), Links(INTERFACE, pair.netns).is_tunnel, unplug)
    )
    pair.call(links.claim_patiently)
    pair.call(links.enforce)
    assert links.kept_down == ()
    assert pair.where(takes) == "here"
    links.close()
    up = shows("ip", "link", "show", "spare", text="state UP")
    assert unplug.pull() == ()
    assert pair.where(up) == "here"
    assert unplug.plug() == ()
    assert pair.where(up) == "here there"
    unplug.close()
    assert pair.call(lambda: links_down(["spare"], pair.netns)) == ()
    assert pair.where(up) == "here"


def test_a_link_that_no_rule_can_name_is_set_down(pair: Pair) -> None:
    """In that namespace."""
    for namespace in (pair.here, pair.there):
        namespace.ip("link set spare down name eth+7", "link set eth+7 up")
    system = System(Links(INTERFACE, pair.netns))
    assert pair.call(system.shut_unnameable) == ("eth+7",)
    assert pair.where(shows("ip", "link", "show", "eth+7", text=",UP")) == "here"


def test_one_gateway_has_one_namespace(pair: Pair) -> None:
    """The claim keeps a second gateway out of that namespace alone."""

    def is_free(namespace: Namespace) -> bool:
        with namespace.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            try:
                other.bind(NAME)
            except OSError:
                return False
            return True

    with pair.call(lambda: claim(pair.netns)):
        assert pair.where(is_free) == "here"
        with pair.call(claim):
            assert pair.where(is_free) == ""


def test_ports_are_those_of_the_namespace(pair: Pair) -> None:
    """As /proc lists them."""
    with pair.there.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 7007))
        assert pair.call(lambda: udp_sockets(7007, netns=pair.netns))
        assert not pair.call(lambda: udp_sockets(7007))


def test_names_are_looked_up(pair: Pair) -> None:
    """The question leaves by that namespace."""
    with ExitStack() as stack:
        servers = {}
        for place, namespace in (("here", pair.here), ("there", pair.there)):
            server = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stack.enter_context(server)
            server.bind(("127.0.0.1", DNS_PORT))
            server.setblocking(False)
            servers[place] = server

        async def asked(netns: Netns) -> str:
            lookup = EndpointLookup(ip_address("127.0.0.1"), netns)
            lookup.open()
            asking = asyncio.create_task(lookup.ask(("vpn.example",)))
            await asyncio.sleep(0.1)
            asking.cancel()
            await asyncio.wait([asking])
            return " ".join(place for place, server in servers.items() if received(server))

        def received(server: socket.socket) -> bool:
            try:
                return bool(server.recv(512))
            except BlockingIOError:
                return False

        assert pair.call(lambda: asyncio.run(asked(pair.netns))) == "there"
        while any(received(server) for server in servers.values()):
            pass
        assert pair.call(lambda: asyncio.run(asked(OWN))) == "here", "control"


def test_the_probe_goes_into_the_tunnel_of_the_namespace(pair: Pair) -> None:
    """A resolver behind the tunnel of `there` answers; here nothing does."""
    for namespace in (pair.here, pair.there):
        namespace.ip(f"link del {INTERFACE}")
    connect(pair.there, INTERFACE, pair.here, "behind")
    pair.there.ip(f"link set {INTERFACE} up", f"addr add 10.64.0.2/24 dev {INTERFACE}")
    pair.here.ip("link set behind up", "addr add 10.64.0.1/24 dev behind")
    with pair.here.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("10.64.0.1", DNS_PORT))

        def answer() -> None:
            question, sender = resolver.recvfrom(512)
            resolver.sendto(question, sender)

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        wanted = Probe(ProbeProtocol.DNS, ip_address("10.64.0.1"))
        sent = SendProbe(wanted)
        assert pair.call(lambda: asyncio.run(probe(sent, pair.netns))).answered is True
        assert pair.call(lambda: asyncio.run(probe(sent))).answered is False
        answering.join()


def iptables(netns: Netns) -> Firewall:
    """Return the legacy tables of `netns`."""
    return IptablesFirewall.find(netns)


def nftables(netns: Netns) -> Firewall:
    """Return the table of nftables of `netns`."""
    return NftablesFirewall.find(Nft(netns=netns))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (iptables, ("iptables-legacy-save",)),
        (iptables, ("ip6tables-legacy-save",)),
        (nftables, ("nft", "list", "ruleset")),
    ],
)
def test_rules_are_put_in_force(
    pair: Pair, make: Callable[[Netns], Firewall], words: tuple[str, ...]
) -> None:
    """Read back and counted too."""
    has_rules = shows(*words, text="loopback")
    there = pair.call(lambda: make(pair.netns))
    pair.call(lambda: there.apply(closed()))
    assert pair.where(has_rules) == "there"
    assert pair.call(lambda: there.verify(closed())) == ()
    assert pair.call(there.refused)["ipv4", "out"] == 0
    here = pair.call(lambda: make(OWN))
    assert pair.call(lambda: here.verify(closed()))
    pair.call(lambda: here.apply(closed()))
    assert pair.where(has_rules) == "here there", "control"


def test_the_guard_is_put_in_force(pair: Pair) -> None:
    """On the links of that namespace."""
    guard = pair.call(lambda: Guard.find(Nft(netns=pair.netns)))
    rules = GuardRules(7, (DeviceGuard("eth0"),))
    pair.call(lambda: guard.apply(rules))
    assert pair.where(shows("nft", "list", "ruleset", text="portcullis_guard")) == "there"
    assert pair.call(lambda: guard.verify(rules)) == ()


def test_one_firewall_takes_over_from_the_other(pair: Pair) -> None:
    """The legacy tables that are emptied are those of that namespace."""
    for namespace in (pair.here, pair.there):
        for program in ("iptables-legacy", "ip6tables-legacy"):
            namespace.run(program, "-A", "OUTPUT", "-j", "DROP")
    assert len(pair.call(lambda: legacy.leftovers(pair.netns))) == 2
    firewall = pair.call(lambda: choose(Backend.NFTABLES, pair.netns))
    pair.call(lambda: take_over(firewall, closed(), pair.netns))
    assert pair.where(shows("iptables-legacy-save", text="-j DROP")) == "here"
    assert pair.where(shows("nft", "list", "tables", text="inet portcullis")) == "there"
    iptables = pair.call(lambda: choose(Backend.IPTABLES, pair.netns))
    pair.call(lambda: take_over(iptables, closed(), pair.netns))
    assert pair.where(shows("nft", "list", "tables", text="inet portcullis")) == ""
    assert pair.where(shows("iptables-legacy-save", text="loopback")) == "there"


@pytest.mark.parametrize("implementation", real_implementations())
def test_the_tunnel_is_made(implementation: str) -> None:
    """Interface, handshake, status, other peers and removal; the caller's namespace has nothing."""
    with closing(Real(implementation, elsewhere=True)) as real:
        real.call("up", real.tunnel, MTU)
        assert wait_for_handshake(real).listen_port == real.tunnel.listen_port
        assert INTERFACE in real.own.run("ip", "link")
        assert INTERFACE not in real.caller.run("ip", "link")
        real.call("configure", real.other)
        wait_for_handshake(real)
        with real.take_port(40000):
            wanted = real.call("status")
        assert wanted.peers[0].public_key == real.other.peers[0].public_key
        real.call("down")
        assert INTERFACE not in real.own.run("ip", "link")


def test_a_link_is_moved_into_another_namespace(pair: Pair) -> None:
    """It keeps its MTU, and is down there; where that name is taken, it stays."""
    pair.call(lambda: Links("spare").set_mtu("spare", MTU))
    pair.there.ip("link del spare")
    pair.call(lambda: Links("spare").move("spare", Links("spare", pair.netns)))
    assert f"mtu {MTU}" in pair.there.run("ip", "link", "show", "spare")
    assert "state DOWN" in pair.there.run("ip", "link", "show", "spare")
    assert pair.where(shows("ip", "link", text="spare")) == "there"
    with pytest.raises(NetworkError) as caught:
        pair.call(lambda: Links("eth0").move("eth0", Links("eth0", pair.netns)))
    assert caught.value.errno == errno.EEXIST
    assert pair.where(shows("ip", "link", text="eth0")) == "here there"


def test_whether_a_file_can_be_written(pair: Pair) -> None:
    """In the namespace that is given."""
    assert pair.netns.is_writable("/proc/sys/net/ipv4/conf/spare/arp_ignore")
    assert not pair.netns.is_writable("/proc/sys/net/ipv4/tcp_available_congestion_control")
    with pytest.raises(FileNotFoundError):
        pair.netns.is_writable("/proc/sys/net/ipv4/conf/nothing/arp_ignore")
