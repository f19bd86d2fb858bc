"""What the ways between a vault and the uplinks survive: packet sizes, addresses, and their making.

The control of each test is the same traffic before the change.
"""

import sys
import time
from ipaddress import ip_interface

import pytest

from gateway.policy.limits import LimitCode
from gateway.policy.passage import INNER, INSIDE, MAC, OUTER, OUTSIDE
from tests.lab.capture import Capture
from tests.lab.hosts import echo, http
from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.namespace import connect
from tests.lab.process import PATIENCE, Child, eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4, OWN6
from tests.promises.test_reload import reload
from tests.promises.test_vault_gateway import Site
from tests.promises.test_vault_holes import HOLES, LISTED

pytestmark = [pytest.mark.lab, pytest.mark.promise("P7", "P8")]

SMALL = 1400
SIZE = 20_000
BULK = f"""
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as peer:
    stream = peer.makefile("rb")
    stream.readline()
    peer.sendall(bytes({SIZE}))
    print(len(stream.read({SIZE})))
"""
"""Sends many packets to an echo, and prints how many bytes came back; it gives up after 3 s."""
SENDING = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setblocking(False)
print("ready", flush=True)
seen = ""
while True:
    try:
        sender.sendto(b"x", (sys.argv[1], 7))
        while True:
            now = sender.recv(2000).split()[0].decode()
            if now != seen:
                seen = now
                print("seen", seen, flush=True)
    except OSError:
        pass
    time.sleep(0.0005)
"""
"""Sends from one port without end, and prints the address that the echo has seen."""
ARP = """
import socket, sys
device, mac, target = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", "")), sys.argv[3]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((device, 0))
for number in range(50):
    sender = mac + bytes([10, 77, 0, number])
    head = bytes([0, 1, 8, 0, 6, 4, 0, 1])
    link.send(mac + mac + bytes([8, 6]) + head + sender + bytes(6) + socket.inet_aton(target))
"""
"""Asks for the hardware address of an end, in the name of 50 senders."""


def sending(lab: Lab) -> Child:
    """Send to the echo in the LAN, without a pause, from one port of the vault."""
    argv = [sys.executable, "-I", "-S", "-c", SENDING, LAN_HOST.ipv4]
    child = lab.household.start(lab.vault_workload.command(argv), "sender")
    child.wait_for("ready")
    return child


def never_seen_outside(lab: Lab) -> bool:
    """Return whether no frame with an address of the vault has left."""
    inner = {str(address.ip) for address in INNER.values()}
    return not [frame for frame in lab.capture.frames() if frame.source in inner]


def test_no_packet_is_larger_than_the_uplink_can_carry(lab: Lab) -> None:
    """The gateway's own "fragmentation needed" would not reach anybody."""
    site = Site(lab).start(**HOLES)
    lab.vault_workload.serve(*(echo(str(it.ip), LISTED) for it in INNER.values()))

    def arrived() -> list[str]:
        ways = [
            *((lab.vault_workload, host, 7) for host in LAN_HOST),
            *((lab.lan, address, LISTED) for address in lab.uplink.gateway),
        ]
        argv = (sys.executable, "-I", "-S", "-c", BULK)
        return [place.run(*argv, host, str(port), check=False) for place, host, port in ways]

    assert arrived() == [f"{SIZE}\n"] * 4
    lab.gateway_namespace.ip(f"link set {lab.uplink.name} mtu {SMALL}")
    lab.internet_namespace.ip(f"link set {lab.uplink.far_end} mtu {SMALL}")

    def is_smaller() -> bool:
        shown = lab.vault_namespace.run("ip", "-o", "link").splitlines()
        return any(f"{INSIDE}@" in line and f"mtu {SMALL} " in line for line in shown)

    eventually(is_smaller, timeout=6, what="a smaller link")
    eventually(lambda: arrived() == [f"{SIZE}\n"] * 4, timeout=6, what="all of it")
    assert site.gateway.status().body["drift"] == 0


def test_a_flow_that_began_before_its_hole_was_whole_is_translated(lab: Lab) -> None:
    """A workload sends while the hole is made; the vault's own address is never seen outside."""
    site = Site(lab).start()
    sender = sending(lab)
    site.gateway.write("/run/secrets/firewall_outbound_subnets", ",".join(LAN_SUBNETS))
    reload(site.gateway)
    sender.wait_for(f"seen {OWN4}", timeout=6 * PATIENCE)
    assert never_seen_outside(lab)


def test_a_flow_takes_the_address_that_its_uplink_has(lab: Lab) -> None:
    """The kernel forgets what it translated to an address that has gone."""
    Site(lab).start(**HOLES)
    sender = sending(lab)
    sender.wait_for(f"seen {OWN4}")
    own = ip_interface(f"{OWN4}/24")
    other = ip_interface(f"{own.ip + 1}/24")
    device = f"dev {lab.uplink.name}"
    lab.operator.run("sysctl", "-w", f"net.ipv4.conf.{lab.uplink.name}.promote_secondaries=1")
    lab.gateway_namespace.ip(f"addr add {other} {device}", f"addr del {own} {device}")
    lab.gateway_namespace.ip(f"route replace default via {own.network[1]} {device}")
    sender.wait_for(f"seen {other.ip}", timeout=10 * PATIENCE)
    assert never_seen_outside(lab)


def test_ipv6_that_cannot_be_forwarded_is_a_limit(lab: Lab) -> None:
    """The log and the status say so; IPv4 has its holes. Control: a /proc/sys to write to."""
    site = Site(lab)
    for read_only in (True, False):
        gateway = site.another(read_only_proc_sys=read_only)
        gateway.start(gateway.env(**HOLES)).wait_healthy()
        said = {limit["code"] for limit in gateway.status().body["limits"]}
        assert (LimitCode.NO_IPV6_HOLES in said) == read_only
        assert (LimitCode.NO_IPV6_HOLES in gateway.logs()) == read_only
        seen = [lab.vault_workload.probe("tcp", host=host).seen for host in LAN_HOST]
        assert seen[0] == OWN4
        assert (seen[1] == OWN6) != read_only  # by the tunnel then
        assert gateway.stop() == 0


@pytest.mark.promise("P2")
def test_an_uplink_with_an_address_of_the_link_is_refused(lab: Lab) -> None:
    """Whether a hole is listed or not, since a reload may list one."""
    site = Site(lab)
    lab.gateway_namespace.ip(f"addr add {OUTER[4]} dev {lab.uplink.name}")
    site.gateway.start()
    assert site.gateway.wait() == 1
    assert "another subnet" in site.gateway.logs()


def test_a_network_with_the_name_of_the_link_is_left_alone(lab: Lab) -> None:
    """An engine can name it so; it is an uplink like others, unless a hole needs the name."""
    connect(lab.internet_namespace, "far", lab.gateway_namespace, OUTSIDE)
    lab.gateway_namespace.ip(f"addr add 172.40.0.2/24 dev {OUTSIDE}", f"link set {OUTSIDE} up")
    site = Site(lab).start()
    site.works()
    guarded = lab.gateway_namespace.run("nft", "list", "table", "netdev", "portcullis_guard")
    assert f'device "{OUTSIDE}"' in guarded
    assert site.gateway.stop() == 0
    gateway = site.another()
    gateway.start(gateway.env(**HOLES))
    eventually(
        lambda: "another network has the name" in gateway.logs(), timeout=8, what="the reason"
    )
    assert "172.40.0.2" in lab.gateway_namespace.run("ip", "addr", "show", OUTSIDE)


@pytest.mark.promise("P14")
def test_a_link_that_is_attached_to_the_vault_is_set_down(lab: Lab) -> None:
    """Each time, and the tunnel continues. Control: before, a packet socket sends on it."""
    site = Site(lab)
    connect(lab.internet_namespace, "vfar", lab.vault_namespace, "eth0")
    mac = {"router_mac": "02:00:00:00:00:01"}
    lab.internet_namespace.ip("link set vfar address 02:00:00:00:00:01 up")
    capture = Capture("vfar", lab.household, enter=lab.internet_namespace.command)

    def sent(marker: str) -> bool:
        given = {"host": LAN_HOST.ipv4, "source": "172.50.0.2", "device": "eth0", **mac}
        lab.vault_workload.probe("packet", marker=marker, **given)
        time.sleep(0.3)
        return bool(capture.containing(marker))

    def is_down() -> bool:
        return "state DOWN" in lab.vault_namespace.run("ip", "link", "show", "eth0")

    lab.vault_namespace.ip("addr add 172.50.0.2/24 dev eth0", "link set eth0 up")
    assert sent("control")
    site.start(**HOLES)
    for number in range(2):
        eventually(is_down, timeout=2, what="it is down")
        assert not sent(f"attached{number}")
        lab.vault_namespace.ip("link set eth0 up")
    site.works()
    assert "not of the vault" in site.gateway.logs()


def test_a_workload_makes_no_neighbours(lab: Lab) -> None:
    """Their table is the whole machine's. Control: the link carries frames to a listed host."""
    Site(lab).start(**HOLES)
    lab.vault_workload.run(*(sys.executable, "-I", "-S", "-c", ARP, INSIDE, MAC, str(OUTER[4].ip)))
    assert lab.vault_workload.probe("tcp", host=LAN_HOST.ipv4).seen == OWN4
    time.sleep(0.3)
    assert "10.77." not in lab.operator.run("ip", "neigh", "show", "nud", "all")


def test_the_health_server_is_asked_from_outside(lab: Lab) -> None:
    """The gateway answers, although a workload listens at that port. Control: at another one."""
    port = 9999
    listed = {
        "FIREWALL_INPUT_PORTS": f"{LISTED},{port}",
        "HEALTH_SERVER_ADDRESS": f"0.0.0.0:{port}",
    }
    site = Site(lab).start(**listed)
    lab.vault_workload.serve(*(http("0.0.0.0", it) for it in (LISTED, port)))
    url = f"http://{OWN4}:{port}/healthz"
    code = "import sys, urllib.request as it; print(it.urlopen(sys.argv[1], None, 3).read())"
    said = lab.lan.run(sys.executable, "-c", code, url)
    assert '"state": "connected"' in said
    assert lab.lan.probe("http", host=OWN4, port=LISTED).seen == LAN_HOST.ipv4
    site.works()


def test_an_echo_is_sent_in_a_vault_without_raw_sockets(lab: Lab) -> None:
    """HEALTH_PROBE=icmp: the kernel's ping socket does it, and the answer is heard."""
    lab.server.namespace.nft(
        "table inet seen { chain arrival { type filter hook prerouting priority -300; "
        f'iifname "{lab.server.interface}" icmp type echo-request meta length < 100 counter; }}; }}'
    )
    Site(lab).start(HEALTH_PROBE="icmp")

    def packets() -> int:
        shown = lab.server.namespace.run("nft", "list", "table", "inet", "seen")
        return int(shown.partition("counter packets ")[2].split()[0])

    eventually(packets, timeout=5, what="an echo")
    time.sleep(2)
    assert packets() == 1, "an echo without an answer would be sent three times"
