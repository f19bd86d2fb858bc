"""Links, addresses, routes and policy rules: what is asked for is in the kernel, or it fails.

The subjects are called in a namespace of their own, next to ip(8), which says what is really there.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import MissingError, NetworkError
from gateway.model import INTERFACE, PortRange, Protocol
from gateway.policy.facts import Route
from gateway.policy.marks import WHOLE
from gateway.policy.routing import LOCKED, routing_for
from gateway.policy.tables import PolicyRule, Routing, TableRoute
from gateway.system import conntrack
from gateway.system.link_down import refuse_unnameable
from gateway.system.link_settings import DeviceSetting
from gateway.system.links import Links
from gateway.system.namespace import Namespace as System
from gateway.system.netlink import MOST_DECODED, MOST_LISTED, RTM_DELROUTE, RTM_DELRULE
from gateway.system.sockets import sockets_of, udp_sockets
from gateway.system.unplug import Unplug
from gateway.system.watch import BURST, watch
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE
from tests.scenarios import DUAL, HOLES, SCENARIOS, TWO_UPLINKS

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]


WANTED = routing_for(DUAL, HOLES, TWO_UPLINKS)
"""A routing with something of everything."""


class Bench:
    """A namespace with two uplinks like those of the scenarios and a stand-in for the tunnel."""

    def __init__(self) -> None:
        """Make it; the interface indexes are those that the scenarios name."""
        self.own = Namespace(f"pcnl{os.getpid()}")
        self.own.create()
        self.own.ip(
            "link add eth0 index 2 type veth peer name far0 index 20",
            "link add eth1 index 3 type veth peer name far1 index 21",
            f"tuntap add {INTERFACE} mode tun",
            "link add spare index 5 type veth peer name far2 index 22",
            *(f"link set {name} up" for name in ("eth0", "eth1", INTERFACE, "far0", "far1")),
            "addr add 172.18.0.2/16 dev eth0",
            "addr add fd18::2/64 dev eth0 nodad",
            "addr add 172.19.0.2/16 dev eth1",
            "link set eth1 mtu 1400",
            "route add default via 172.18.0.1",
            "route add default via fd18::1",
        )
        self.links = Links(INTERFACE)
        self.system = System(self.links)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the namespace or of its links inside."""
        subject = self.system if hasattr(self.system, name) else self.links
        return self.own.inside(lambda: getattr(subject, name)(*arguments))

    def ip(self, *words: str) -> str:
        """Run the tool inside and return what it says."""
        return self.own.run("ip", *words)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a bench of its own for each test."""
    made = Bench()
    yield made
    made.own.delete()


def test_facts_are_the_uplinks_that_are_up_and_the_routes_of_the_main_table(bench: Bench) -> None:
    """Both families, prefixes as the kernel holds them; no loopback, no tunnel, no link-local."""
    bench.own.ip(
        "link set far1 down",
        "addr add 10.64.0.2/32 dev wg0",
        "route add 10.1.0.0/16 dev wg0",
        "route add 10.2.0.0/16 via 172.18.0.9 metric 7",
        "route add 10.3.0.0/16 via 172.18.0.9 table 77",
        "route add unreachable 10.4.0.0/16",
        "route add 10.5.0.0/16 nexthop via 172.18.0.8 nexthop via 172.19.0.8",
    )
    facts = bench.call("facts")
    uplinks = {uplink.name: uplink for uplink in facts.uplinks}
    assert set(uplinks) == {"eth0", "eth1", "far0"}
    assert (uplinks["eth0"].index, uplinks["eth0"].mtu, uplinks["eth1"].mtu) == (2, 1500, 1400)
    assert uplinks["eth0"].addresses == TWO_UPLINKS.uplinks[0].addresses
    assert uplinks["far0"].addresses == ()
    routes = {route for route in facts.routes if not route.destination.is_link_local}
    assert routes == {
        *TWO_UPLINKS.routes,
        Route(ip_network("10.2.0.0/16"), "eth0", ip_address("172.18.0.9"), 7),
        Route(ip_network("10.5.0.0/16"), "eth0", ip_address("172.18.0.8")),
        Route(ip_network("10.5.0.0/16"), "eth1", ip_address("172.19.0.8")),
    }


GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def read(text: str) -> Routing:
    """Return the routing that a golden file describes."""
    routes, rules = [], []
    for line in text.splitlines():
        typed, _, why = line.partition("  # ")
        family, kind, _, *words = typed.split()
        unreachable = words[0] == "unreachable"
        pairs = words[1 + unreachable :] if kind == "route" else words
        given = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if kind == "route":
            gateway = given.get("via")
            routes.append(
                TableRoute(
                    ip_network(words[unreachable]),
                    int(given["table"]),
                    given.get("dev"),
                    ip_address(gateway) if gateway else None,
                    unreachable,
                    int(given.get("metric", 0)),
                    ip_address(given["src"]) if "src" in given else None,
                )
            )
        else:
            source, destination = (given.get(word) for word in ("from", "to"))
            mark, _, mask = given.get("fwmark", "").partition("/")
            rules.append(
                PolicyRule(
                    int(family[1]),
                    int(given["priority"]),
                    int(given["lookup"]),
                    why,
                    int(mark, 0) if mark else None,
                    int(mask, 0) if mask else WHOLE,
                    source=ip_network(source) if source else None,
                    destination=ip_network(destination) if destination else None,
                    source_ports=port_range(given) if "sport" in given else None,
                    but_default="suppress_prefixlength" in given,
                )
            )
    return Routing(tuple(routes), tuple(rules))


def port_range(given: dict[str, str]) -> PortRange:
    """Return the source ports that a rule of a golden file names."""
    first, _, last = given["sport"].partition("-")
    return PortRange(Protocol(given["ipproto"]), int(first), int(last))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_routing_is_what_an_operator_would_have_typed(bench: Bench, name: str) -> None:
    """The golden files, typed into ip(8), verify as ours, and ours replace whatever was there."""
    bench.own.ip(
        "link add eth2 type veth peer name far3",
        "link set eth2 up",
        "addr add 172.50.0.2/16 dev eth2",
    )
    text = (GOLDEN / f"{name}.routes").read_text("utf-8")
    wanted = read(text)
    assert bench.call("routing_drift", wanted)
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        bench.ip(*words, *(["onlink"] if "via" in words else []))
    assert bench.call("routing_drift", wanted) == ()
    for other in (LOCKED, wanted, WANTED, wanted):
        bench.call("apply_routing", other)
        assert bench.call("routing_drift", other) == ()


FOREIGN = (
    "rule del priority 150",
    "-6 rule del priority 150",
    "-6 rule del priority 110",
    "rule add priority 1 lookup main",
    "rule add priority 120 lookup main",
    "rule add priority 149 iif eth0 suppress_prefixlength 0 lookup 51820",
    "rule add priority 150 iif eth0 lookup 51820",
    "rule add priority 150 not fwmark 1 lookup 51820",
    "-6 rule add priority 110 fwmark 0xca6c/0xff to 2001:db8:100::10 lookup main",
    "-6 rule add priority 199 unreachable",
    "rule add priority 101 from 172.18.0.2 ipproto tcp sport 8000-9000 lookup main",
    "route del unreachable default table 51820 metric 1000000000",
    "route del default dev wg0 table 51820",
    "route replace default dev eth0 table 51820",
    "-6 route replace default dev eth0 table 51820 metric 1024",
    "route add 198.51.100.0/24 via 172.18.0.1 dev eth0 table 51820 onlink",
    "route add 198.51.100.0/24 dev eth0 table 1886126180",
    "route replace default dev wg0 table 51820 mtu lock 900",
    "route flush table 1886126082",
)


@pytest.mark.promise("P17")
@pytest.mark.parametrize("change", FOREIGN)
def test_a_foreign_change_is_reported_and_put_back(bench: Bench, change: str) -> None:
    """What others change in our tables and our band of priorities is gone after the next apply."""
    bench.call("apply_routing", WANTED)
    bench.ip(*change.split())
    assert bench.call("routing_drift", WANTED)
    bench.call("apply_routing", WANTED)
    assert bench.call("routing_drift", WANTED) == ()


def test_what_belongs_to_others_is_left_alone(bench: Bench) -> None:
    """Rules behind ours and routes of other tables are left alone."""
    bench.own.ip("rule add priority 200 lookup 77")
    bench.own.ip("route add 10.3.0.0/16 dev eth0 table 77")
    before = bench.ip("rule"), bench.ip("route", "show", "table", "77"), bench.ip("route")
    bench.call("apply_routing", WANTED)
    bench.call("apply_routing", Routing((), ()))
    assert (bench.ip("rule"), bench.ip("route", "show", "table", "77"), bench.ip("route")) == before


@pytest.mark.promise("P13")
def test_the_end_of_the_table_and_the_rule_to_it_stand_at_every_moment(bench: Bench) -> None:
    """From one routing to another nothing is deleted that both want."""
    bench.call("apply_routing", LOCKED)
    listener = bench.own.inside(_listener)
    for routing in (WANTED, LOCKED, WANTED):
        bench.call("apply_routing", routing)
    kinds = _kinds(listener)
    deleted = [kind for kind in kinds if kind in {RTM_DELROUTE, RTM_DELRULE}]
    surplus = len(WANTED.routes) + len(WANTED.rules) - len(LOCKED.routes) - len(LOCKED.rules)
    assert len(kinds) > 3 * surplus - 1, "control: the listener hears of changes"
    assert len(deleted) == surplus, "only what LOCKED does not want was deleted, once"


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    listener.bind((0, 0x40 | 0x80 | 0x400 | 0x40000))
    listener.setblocking(False)
    return listener


def _kinds(listener: socket.socket) -> list[int]:
    """Return the types of the messages that came."""
    kinds = []
    with listener:
        while True:
            try:
                data = listener.recv(1 << 16)
            except BlockingIOError:
                return kinds
            kinds.append(int.from_bytes(data[4:6], "little"))


def test_a_route_by_a_link_that_is_gone_is_an_error_and_the_end_is_there(bench: Bench) -> None:
    """`wg0` vanishes between two steps: an error with errno, and nothing less strict."""
    bench.own.ip(f"link del {INTERFACE}")
    with pytest.raises(NetworkError) as caught:
        bench.call("apply_routing", WANTED)
    assert caught.value.errno == errno.ENODEV
    assert "unreachable default" in bench.ip("route", "show", "table", "51820")
    assert "unreachable default" in bench.ip("-6", "route", "show", "table", "51820")
    assert "lookup 51820" in bench.ip("rule", "show", "priority", "150")


def test_an_impossible_rule_is_an_error_that_names_it(bench: Bench) -> None:
    """The kernel's refusal comes with its errno and the words of ip-rule(8)."""
    route = TableRoute(ip_network("10.0.0.0/8"), 51820, "eth0", ip_address("224.0.0.1"))
    with pytest.raises(NetworkError) as caught:
        bench.call("apply_routing", Routing((*LOCKED.routes, route), LOCKED.rules))
    assert caught.value.errno
    assert "10.0.0.0/8 via 224.0.0.1" in str(caught.value)


@pytest.mark.promise("P13")
def test_ipv6_ends_in_unreachable_also_where_it_is_switched_off(bench: Bench) -> None:
    """Docker's `disable_ipv6` does not keep the second barrier from standing."""
    bench.own.sysctl("ipv6/conf/all/disable_ipv6", 1)
    bench.call("apply_routing", LOCKED)
    assert bench.call("routing_drift", LOCKED) == ()


def test_addresses_come_as_host_addresses_and_without_a_route(bench: Bench) -> None:
    """Usable at once, in both families, each once; the main table stays as it was."""
    before = bench.ip("route"), bench.ip("-6", "route")
    wanted = [ip_interface(text) for text in ("10.64.0.2/24", "10.64.0.2/32", "fd64::2/64")]
    bench.call("add_addresses", INTERFACE, wanted)
    shown = bench.ip("-o", "addr", "show", "dev", INTERFACE)
    assert "inet 10.64.0.2/32" in shown
    assert "inet6 fd64::2/128" in shown
    assert "tentative" not in shown.partition("fd64::2")[2].splitlines()[0]
    assert (bench.ip("route"), bench.ip("-6", "route")) == before
    with pytest.raises(NetworkError) as caught:
        bench.call("add_addresses", INTERFACE, wanted)
    assert caught.value.errno == errno.EEXIST


def test_an_ipv6_address_switches_ipv6_on_for_its_link(bench: Bench) -> None:
    """Where /proc/sys can be written, the link does not inherit that IPv6 is off."""
    bench.own.sysctl("ipv6/conf/all/disable_ipv6", 1)
    bench.call("add_addresses", INTERFACE, [ip_interface("fd64::2/128")])
    assert "fd64::2/128" in bench.ip("addr", "show", "dev", INTERFACE)


def test_device_settings_are_set_and_read_over_netlink(bench: Bench) -> None:
    """What was set is in /proc/sys, for this link alone."""
    settings = dict.fromkeys(DeviceSetting, 1)
    assert bench.call("device", "eth0") != settings
    bench.call("set_device", "eth0", settings)
    assert bench.call("device", "eth0") == settings
    for setting in DeviceSetting:
        for link, value in (("eth0", "1"), ("eth1", None)):
            path = Path("/proc/sys/net/ipv4/conf", link, setting.name.lower())
            found = bench.own.inside(lambda path=path: path.read_text("ascii").strip())
            assert value is None or found == value, path
    assert bench.call("device", "eth1") != settings


@pytest.mark.parametrize(
    ("method", "arguments", "number"),
    [
        ("set_up", ("nolink",), errno.ENODEV),
        ("set_mtu", ("nolink", 1400), errno.ENODEV),
        ("set_mtu", ("eth0", 1), errno.EINVAL),
        ("add_link", ("eth0", "veth"), errno.EEXIST),
        ("add_link", ("new0", "nosuchkind"), errno.EOPNOTSUPP),
        ("set_device", ("nolink", {DeviceSetting.ARP_IGNORE: 1}), errno.ENODEV),
        ("add_addresses", ("nolink", []), errno.ENODEV),
    ],
)
def test_a_refusal_keeps_its_number_and_names_the_link(
    bench: Bench, method: str, arguments: tuple[Any, ...], number: int
) -> None:
    """The kernel's errno and the object come through the adapter."""
    with pytest.raises(NetworkError) as caught:
        bench.call(method, *arguments)
    assert (caught.value.errno, caught.value.subject) == (number, arguments[0])


def test_a_link_is_deleted_once_and_is_then_no_error(bench: Bench) -> None:
    """Removing what is not there is done already."""
    bench.call("delete_link", INTERFACE)
    assert bench.call("index", INTERFACE) is None
    assert not bench.call("is_up", INTERFACE)
    bench.call("delete_link", INTERFACE)


def test_another_programs_uplink_of_the_tunnels_name_is_an_uplink_and_stays(bench: Bench) -> None:
    """Any link may have the name; the tunnel's is known by its kind too."""
    assert INTERFACE not in {uplink.name for uplink in bench.call("facts").uplinks}, "control"
    bench.call("delete_link", INTERFACE)
    bench.own.ip(f"link set spare name {INTERFACE}", f"link set {INTERFACE} up")
    assert INTERFACE in {uplink.name for uplink in bench.call("facts").uplinks}
    with pytest.raises(NetworkError, match="not a tunnel") as caught:
        bench.call("delete_link", INTERFACE)
    assert caught.value.subject == INTERFACE
    assert bench.call("is_up", INTERFACE)


@pytest.mark.parametrize("name", ["eth+0", "et*", "é", "a'b"])
def test_a_link_that_no_rule_can_name_is_set_down_and_no_other(bench: Bench, name: str) -> None:
    """Again whenever it comes up; at the start it is an error that says what to do."""
    bench.own.ip(f"link set far0 down name {name}", f"link set {name} up")
    namespace = System(bench.links)
    assert bench.own.inside(namespace.shut_unnameable) == (name,)
    assert not bench.call("is_up", name)
    assert bench.call("is_up", "eth1")
    assert bench.own.inside(namespace.shut_unnameable) == ()
    bench.own.ip(f"link set {name} up")
    with pytest.raises(MissingError, match="another name"):
        bench.own.inside(refuse_unnameable)
    assert not bench.call("is_up", name)


def test_the_last_resort_sets_every_link_down_but_loopback(bench: Bench) -> None:
    """And up again, once there are rules."""
    assert bench.call("is_up", "eth0")
    unplug = bench.own.inside(Unplug)
    assert unplug.pull() == ()
    assert not any(bench.call("is_up", name) for name in ("eth0", "eth1", INTERFACE, "far0"))
    assert bench.call("is_up", "lo")
    assert unplug.plug() == ()
    unplug.close()
    assert bench.call("is_up", "eth0")


@pytest.mark.promise("P6")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_no_flow_outlives_the_flush(bench: Bench, family: int) -> None:
    """Flows of both families are forgotten by one call. Limitations: UDP over loopback."""
    bench.own.nft("table inet t { chain c { type filter hook output priority 0; ct state new; }; }")
    host = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[socket.AddressFamily(family)]
    with bench.own.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((host, 7007))
        one.sendto(b"flow", (host, 7007))
        listed = ("conntrack", "-L", "-f", "ipv4" if family == socket.AF_INET else "ipv6")
        assert "7007" in bench.own.run(*listed), "control: the flow is known"
        bench.own.inside(conntrack.flush)
        assert "7007" not in bench.own.run(*listed)
    bench.own.inside(conntrack.flush)


def test_the_owner_of_a_udp_port_can_be_found(bench: Bench) -> None:
    """The sockets of a port, and of a process; another namespace's are not among them."""
    with bench.own.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind(("::", 51820))
        owners = bench.own.inside(lambda: udp_sockets(51820))
        assert len(owners) == 1
        assert owners <= sockets_of(os.getpid())
        assert not bench.own.inside(lambda: udp_sockets(51821))
        assert not owners & udp_sockets(51820)
    assert sockets_of(2**22 + 1) == frozenset()


CHANGES: dict[str, Callable[[Bench], object]] = {
    "link new": lambda b: b.own.ip("link add va type veth peer name vb"),
    "link down": lambda b: b.own.ip("link set eth1 down"),
    "link renamed": lambda b: b.own.ip("link set far2 name other"),
    "link gone": lambda b: b.own.ip(f"link del {INTERFACE}"),
    "address": lambda b: b.own.ip("addr del 172.18.0.2/16 dev eth0"),
    "IPv6 address": lambda b: b.own.ip("addr del fd18::2/64 dev eth0"),
    "route": lambda b: b.own.ip("route del default"),
    "IPv6 route": lambda b: b.ip("-6", "route", "del", "default"),
    "rule": lambda b: b.own.ip("rule add priority 7 lookup 7"),
    "IPv6 rule": lambda b: b.ip("-6", "rule", "add", "priority", "7", "lookup", "7"),
    "route with its nexthop object": lambda b: b.ip("nexthop", "del", "id", "7"),
    "more than the buffer holds": lambda b: b.own.ip(
        *(f"route add 10.{n // 250}.{n % 250}.0/24 dev eth0" for n in range(5000))
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_others_is_reported_at_once(bench: Bench, name: str) -> None:
    """Within 50 ms, and what is lost in a flood of changes counts as one."""

    async def listen() -> tuple[int, int]:
        reported = 0

        def count() -> None:
            nonlocal reported
            reported += 1

        bench.ip("nexthop", "add", "id", "7", "dev", "eth0")
        bench.ip("route", "add", "198.18.0.0/15", "nhid", "7")
        watching = asyncio.ensure_future(watch(count))
        before = -1
        while before != reported:  # until nothing has changed for a while
            before = reported
            await asyncio.sleep(0.1)
        CHANGES[name](bench)
        await asyncio.sleep(0.05)
        watching.cancel()
        return before, reported

    before, after = bench.own.inside(lambda: asyncio.run(listen()))
    assert before >= 1, "control: reported once in the beginning"
    assert after > before


TOO_MANY = {
    "routes": (
        f"route add 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 dev eth0" for n in range(MOST_LISTED)
    ),
    "rules": (f"rule add priority {1000 + n} lookup 7" for n in range(MOST_DECODED)),
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_a_list_that_is_too_long_is_an_error(bench: Bench, kind: str) -> None:
    """It says so, soon, and what is there stays. Control: the same list before."""
    bench.call("apply_routing", LOCKED)
    assert bench.call("routing_drift", LOCKED) == (), "control"
    bench.own.ip(*TOO_MANY[kind])
    since = time.monotonic()
    with pytest.raises(NetworkError, match="there are more than") as caught:
        bench.call("routing_drift", LOCKED)
    assert caught.value.errno == errno.EOVERFLOW
    with pytest.raises(NetworkError, match="there are more than"):
        bench.call("apply_routing", LOCKED)
    assert time.monotonic() - since < 20 * PATIENCE
    assert "lookup 51820" in bench.ip("rule", "show", "priority", "150")


def test_a_flood_of_changes_is_passed_on_once_a_second(bench: Bench) -> None:
    """Each change costs a look at the namespace, and a neighbour can make them without end.

    Control: the same flood is heard of, and a link is passed on at once all the same.
    """
    changes = [f"route {what} 10.77.0.0/24 dev eth0" for what in ("add", "del")] * 5000

    async def listen() -> tuple[int, int]:
        reported = 0

        def count() -> None:
            nonlocal reported
            reported += 1

        watching = asyncio.ensure_future(watch(count))
        await asyncio.sleep(0.1)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            await asyncio.to_thread(bench.own.ip, *changes)
        flooded = reported
        bench.own.ip("link set eth1 down")
        await asyncio.sleep(0.05)
        watching.cancel()
        return flooded, reported

    flooded, after = bench.own.inside(lambda: asyncio.run(listen()))
    assert 2 < flooded < BURST + 10
    assert after > flooded


def test_a_rule_that_says_less_goes_without_one_that_says_more(bench: Bench) -> None:
    """The kernel deletes the first rule that fits; what it took instead of the other is back."""
    lan = PolicyRule(4, 120, 254, "narrow", destination=ip_network("192.168.1.0/24"))
    everything = PolicyRule(4, 120, 254, "wide")
    narrow, both = ((*LOCKED.rules, lan), (*LOCKED.rules, lan, everything))
    bench.call("apply_routing", Routing(LOCKED.routes, narrow))
    bench.call("apply_routing", Routing(LOCKED.routes, both))
    assert len(bench.ip("rule", "show", "priority", "120").splitlines()) == 2, "control"
    bench.call("apply_routing", Routing(LOCKED.routes, narrow))
    assert "to 192.168.1.0/24" in bench.ip("rule", "show", "priority", "120")
