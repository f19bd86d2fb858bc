"""The lab proves itself: what it shows as absent elsewhere, it can show as present here.

Nothing here starts the gateway. The namespace is open, and a hand-made WireGuard client takes
the gateway's place where a tunnel is needed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.capture import Capture
from tests.lab.errors import LabError
from tests.lab.frames import Frame, addressed_to, is_multicast_report
from tests.lab.hosts import echo
from tests.lab.internet import INTERNET, LAN_HOST, OTHER_LAN_HOST, OUTSIDER
from tests.lab.kinds import KINDS, OWN4, OWN6
from tests.lab.namespace import NETNS_DIRECTORY, Namespace
from tests.lab.process import PATIENCE, eventually, run
from tests.lab.server import CLIENT, INSIDE, RESOLVED, Server, wait_for_socket
from tests.lab.topology import Lab, sweep

pytestmark = pytest.mark.lab

HOST4, HOST6 = INTERNET[0]
ROUTER4, ROUTER6 = "172.30.0.1", "fd30::1"

STAND_IN = """
import http.server, json, os, signal, sys
started = {"event": "started", "pid": os.getpid(), "environ": sorted(os.environ)}
print(json.dumps(started), flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"state": "Connected"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 9999), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """Return one open lab for the tests that leave nothing behind in it."""
    with Lab() as lab:
        yield lab


class Client:
    """A WireGuard client made by hand in the gateway's namespace."""

    def __init__(self, lab: Lab, server: Server, *, family: int = 4) -> None:
        """Bring up the tunnel and send everything but the endpoint's packets through it."""
        self.namespace = lab.gateway_namespace
        self.interface = f"{lab.prefix}c"
        if server.implementation == "kernelspace":
            self.namespace.ip(f"link add {self.interface} type wireguard")
        else:
            command = self.namespace.command(["wireguard-go", "-f", self.interface])
            lab.household.start(command, "client")
            wait_for_socket(self.interface)
        self.lab = lab
        self.configure(server, family)
        self.namespace.ip(
            f"addr add {CLIENT.ipv4}/32 dev {self.interface}",
            f"addr add {CLIENT.ipv6}/128 dev {self.interface} nodad",
            f"link set {self.interface} mtu 1420 up",
            f"route add default dev {self.interface} table 51820",
        )
        for option in ("-4", "-6"):
            self.namespace.run(
                "ip", option, "rule", "add", "not", "fwmark", "0xca6c", "table", "51820"
            )
        self.namespace.run(
            "ip", "-6", "route", "add", "default", "dev", self.interface, "table", "51820"
        )

    def configure(self, server: Server, family: int = 4) -> None:
        """Set keys and endpoint again, which starts a handshake at once."""
        endpoint = server.endpoint.ipv6 if family == 6 else server.endpoint.ipv4
        shown = f"[{endpoint}]" if family == 6 else endpoint
        text = (
            f"[Interface]\nPrivateKey = {self.lab.client.private}\nListenPort = 51820\n"
            f"FwMark = 0xca6c\n[Peer]\nPublicKey = {server.keys.public}\n"
            f"PresharedKey = {server.preshared_key}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
            f"Endpoint = {shown}:{server.port}\nPersistentKeepalive = 1\n"
        )
        self.namespace.run("wg", "setconf", self.interface, "/dev/stdin", stdin=text)


# -- topology ---------------------------------------------------------------------------------


@pytest.mark.quiet
@pytest.mark.no_gateway
def test_labs_come_up_fast_stand_side_by_side_and_leave_nothing() -> None:
    """Two labs at once, each in under two seconds, both gone afterwards."""
    started = time.monotonic()
    with Lab() as first:
        assert time.monotonic() - started < 2 * PATIENCE
        with Lab(servers=2, uplinks=2) as second:
            for lab in (first, second):
                assert lab.workload.probe("tcp", host=HOST4).seen == OWN4
        directory, prefixes = first.household.directory, (first.prefix, second.prefix)
    assert not directory.exists()
    names = [path.name for path in NETNS_DIRECTORY.iterdir()]
    assert not [name for name in names if name.startswith(prefixes)]
    assert not list(Path("/var/run/wireguard").glob(f"{prefixes[0]}*"))


def test_a_lab_that_fails_half_way_removes_what_it_built() -> None:
    """An implementation that does not exist stops the build; no namespace stays."""
    lab = Lab(implementation="kernelspace")
    lab.server.interface = "a-name-that-is-too-long"
    with pytest.raises(LabError), lab:
        pass
    assert not [path for path in NETNS_DIRECTORY.iterdir() if path.name.startswith(lab.prefix)]


def test_leftovers_of_a_dead_run_are_swept_and_those_of_a_live_one_are_not(lab: Lab) -> None:
    """The process id in the name decides."""
    dead = lab.household.start(["true"], "dead")
    dead.wait()
    leftover = Namespace(f"pcl{dead.pid}x1-gateway")
    leftover.create()
    sleeper = lab.household.start(leftover.command(["sleep", "60"]), "sleeper")
    eventually(leftover.pids, timeout=2, what="the sleeper")
    assert sweep() == [leftover.name]
    assert sleeper.wait() == -signal.SIGKILL
    assert lab.gateway_namespace.path.exists()


def test_hosts_see_the_uplinks_address_and_know_who_asked(shared: Lab) -> None:
    """Internet and LAN, both families, echo and HTTP and DNS."""
    for host in (*INTERNET, LAN_HOST, OTHER_LAN_HOST, shared.uplink.router):
        for address, own in zip(host, (OWN4, OWN6), strict=True):
            for name in ("tcp", "udp", "http"):
                assert shared.workload.probe(name, host=address).seen == own, (name, address)
            for transport in ("udp", "tcp"):
                found = shared.workload.probe("dns", server=address, transport=transport)
                assert found.result == "answered"
    assert shared.arrivals("lan", kind="http", address=LAN_HOST.ipv4, client=OWN4)
    assert shared.arrivals(kind="dns", transport="udp", name="example.test", client=OWN6)


def test_clients_on_the_lan_outside_and_next_door_reach_a_published_port(shared: Lab) -> None:
    """The workload sees each of them by its own address."""
    served = shared.workload.serve(echo("0.0.0.0", 8080), echo("::1", 8080), echo(OWN6, 8081))
    try:
        for place, source in (
            (shared.lan, LAN_HOST.ipv4),
            (shared.lan, OTHER_LAN_HOST.ipv4),
            (shared.internet, OUTSIDER.ipv4),
            (shared.internet, ROUTER4),
        ):
            answer = place.probe("tcp", host=OWN4, port=8080, source=source)
            assert (answer.result, answer.seen) == ("connected", source)
            assert served.events(client=source)
        answer = shared.internet.probe("tcp", host=OWN6, port=8081, source=OUTSIDER.ipv6)
        assert answer.seen == OUTSIDER.ipv6
        assert shared.lan.probe("tcp", host=OWN4, port=8090).result == "refused"
    finally:
        served.close()


def test_a_second_uplink_comes_and_goes_with_its_own_capture(lab: Lab) -> None:
    """Its neighbour answers, its capture sees it, and detaching removes the interface."""
    uplink = lab.attach_uplink()
    assert lab.workload.probe("udp", host=uplink.router.ipv4, marker="m-4").seen == "172.31.0.2"
    assert lab.workload.probe("udp", host=uplink.router.ipv6, marker="m-6").seen == "fd31::2"
    for marker in ("m-4", "m-6"):
        assert uplink.capture.containing(marker)
        assert not lab.capture.containing(marker)
    assert {str(frame.destination) for frame in lab.leaks()} >= set(uplink.router)
    lab.detach_uplink(uplink)
    assert "eth1" not in lab.workload.run("ip", "-o", "link")
    assert lab.workload.probe("tcp", host=HOST4).result == "connected"


def test_a_stand_in_for_dockers_resolver_answers_on_port_53(lab: Lab) -> None:
    """Over UDP and TCP; and it knows who asked what."""
    resolver = lab.docker_resolver()
    for transport in ("udp", "tcp"):
        answer = lab.workload.probe("dns", transport=transport, name=f"{transport}.test")
        assert answer.fields["address"] == HOST4
        assert resolver.events(name=f"{transport}.test", transport=transport)


# -- capture ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arguments", "expected"), KINDS)
def test_every_probe_gets_out_of_an_open_namespace_and_is_seen(
    shared: Lab, name: str, arguments: dict[str, Any], expected: str
) -> None:
    """The positive control of all leak tests, with Docker's default capabilities."""
    marker = f"marker-{time.monotonic_ns()}"
    marked = {} if name in {"tcp", "http"} else {"marker": marker}
    since = time.monotonic()
    answer = shared.workload.probe(name, **arguments, **marked)
    assert answer.result == expected, answer
    target = str(arguments.get("host", "")).removeprefix("::ffff:")

    def wanted(frame: Frame) -> bool:
        return marker.encode() in frame.raw if marked else frame.destination == target

    seen = shared.capture.wait_for(wanted, since=since)
    assert since <= seen.at <= time.monotonic()
    assert seen in shared.leaks(since)


def test_forged_sources_fragments_and_options_are_what_they_say(shared: Lab) -> None:
    """The kernel did not tidy up what a probe made crooked on purpose."""
    since = time.monotonic()
    workload = shared.workload
    workload.probe("forged", host=HOST4, source="10.64.0.2", marker="crooked")
    workload.probe("fragments", host=HOST4, source=OWN4, marker="crooked")
    workload.probe("fragments", host=HOST6, source=OWN6, marker="crooked")
    workload.probe("options", host=HOST4, marker="crooked")
    frames = shared.capture.frames(since)
    assert any(frame.source == "10.64.0.2" for frame in frames)
    assert {frame.destination for frame in frames if frame.fragment_offset} == {HOST4, HOST6}
    assert any(frame.raw[14] == 0x48 for frame in frames), "20 octets and 12 of options"


def test_frames_injected_on_loopback_get_an_answer_out(shared: Lab) -> None:
    """A workload can pretend that a stranger called; an open namespace answers him outside."""
    served = shared.workload.serve(echo("0.0.0.0", 8088))
    shared.gateway_namespace.sysctl("ipv4/conf/lo/accept_local", 1)
    since = time.monotonic()
    try:
        answer = shared.workload.probe(
            "packet", device="lo", source=HOST4, host=OWN4, port=8088, transport="tcp"
        )
        assert answer.result == "sent"
        shared.capture.wait_for(lambda f: f.source_port == 8088, since=since)
    finally:
        served.close()


def test_workloads_lack_net_admin_and_operators_have_it(shared: Lab) -> None:
    """Docker's default capabilities hold for probes and programs."""
    link = ("ip", "link", "set", "lo", "up")
    with pytest.raises(LabError, match="not permitted"):
        shared.workload.run(*link)
    shared.operator.run(*link)


def test_a_flood_is_captured_without_a_hole(lab: Lab) -> None:
    """Every datagram that the flood says it sent is in the capture, in both families."""
    flood = lab.workload.flood("udp4", "udp6", "packet4", "packet6", rate=0)
    time.sleep(0.5)
    counters = flood.stop()
    frames = lab.capture.containing("flood-marker")
    assert not counters["errors"]
    assert len(frames) == counters["sent"] > 1000
    numbers = [int(frame.payload.split()[2]) for frame in frames if b" udp4 " in frame.payload]
    # A queue that moves to another processor can put two frames in another order.
    assert sorted(numbers) == list(range(len(numbers)))
    delays = [frame.at - int(frame.payload.split()[3]) / 1e9 for frame in frames]
    assert 0 <= sorted(delays)[len(delays) // 2] < 0.005 * PATIENCE, "one clock for both"


@pytest.mark.parametrize(
    "kind", ["udp4", "udp6", "device4", "device6", "mark4", "mark6", "raw4", "raw6", "tcp4",
             "tcp6", "packet4", "packet6"],
)  # fmt: skip
def test_each_kind_of_flood_gets_out(shared: Lab, kind: str) -> None:
    """A flood that sends nothing would prove nothing."""
    since = time.monotonic()
    flood = shared.workload.flood(kind, rate=200)
    target = HOST6 if kind.endswith("6") else HOST4
    try:
        shared.capture.wait_for(
            lambda f: f.destination == target and f.protocol == {"r": 253, "t": 6}.get(kind[0], 17),
            since=since,
        )
    finally:
        assert flood.stop()["sent"] > 0


def test_a_capture_that_lost_frames_says_so(lab: Lab) -> None:
    """A recorder whose buffer overflows while it is held still cannot pass as clean."""
    small = Capture("up0", lab.household, enter=lab.internet_namespace.command, buffer=4096)
    recorder = small._child  # noqa: SLF001 - the one test of the recorder's own failure
    recorder.signal(signal.SIGSTOP)
    lab.workload.flood("udp4").stop()
    for _ in range(20):
        lab.workload.probe("udp", host=HOST4)
    recorder.signal(signal.SIGCONT)
    with pytest.raises(LabError, match="lost"):
        small.frames()
    assert lab.capture.frames()


def test_a_capture_whose_recorder_died_says_so(lab: Lab) -> None:
    """Silence of a dead recorder must not read as silence of the link."""
    lab.capture.close()
    with pytest.raises(LabError, match="has ended"):
        lab.capture.frames()


def test_neighbour_discovery_on_the_link_is_not_a_leak_and_all_else_is(lab: Lab) -> None:
    """ARP and IPv6 neighbour discovery for the router alone are not a leak."""
    since = time.monotonic()
    lab.workload.probe("udp", host=HOST4)
    lab.workload.probe("udp", host=HOST6)
    assert [f for f in lab.capture.frames(since) if f.ethertype == 0x0806]
    kernel = [is_multicast_report]
    assert {f.destination for f in lab.leaks(since, allowed=kernel)} == {HOST4, HOST6}
    rest = lab.leaks(since, allowed=[*kernel, addressed_to(HOST4)])
    assert {f.destination for f in rest} == {HOST6}


# -- server -----------------------------------------------------------------------------------


def connected(lab: Lab, timeout: float = 10) -> None:
    """Wait until the tunnel carries packets."""
    eventually(
        lambda: lab.workload.probe("udp", host=INSIDE.ipv4, timeout=0.3).result == "answered",
        timeout=timeout,
        what="the tunnel",
    )


@pytest.mark.parametrize("family", [4, 6])
def test_a_hand_made_client_leaves_by_the_exit_and_resolves_inside(lab: Lab, family: int) -> None:
    """Both endpoints carry both families; outside there are encrypted packets only."""
    since = time.monotonic()
    Client(lab, lab.server, family=family)
    connected(lab)
    for host, seen in zip(INTERNET[0], lab.server.exit, strict=True):
        assert lab.workload.probe("tcp", host=host).seen == seen
        assert lab.workload.probe("udp", host=host).seen == seen
    for transport in ("udp", "tcp"):
        for server in INSIDE:
            answer = lab.workload.probe("dns", server=server, transport=transport, name="in.test")
            assert answer.fields["address"] == RESOLVED.ipv4
    assert len(lab.server.queries(name="in.test")) == 4
    assert lab.server.peer()["handshake"]
    endpoint = lab.server.endpoint.ipv6 if family == 6 else lab.server.endpoint.ipv4
    assert [f for f in lab.capture.frames(since) if f.destination == endpoint]
    assert lab.leaks(since, allowed=[is_multicast_report]) == []


def test_a_server_can_be_cut_and_restored_in_either_direction(lab: Lab) -> None:
    """Cut means silence, not an error, and the session continues afterwards."""
    Client(lab, lab.server)
    connected(lab)
    for direction in ("both", "in", "out"):
        lab.server.cut(direction)
        answer = lab.workload.probe("udp", host=HOST4, timeout=0.3)
        assert answer.result == "timeout"
        lab.server.restore()
        assert lab.workload.probe("udp", host=HOST4).seen == lab.server.exit.ipv4
    lab.server.cut_exit()
    assert lab.workload.probe("udp", host=HOST4, timeout=0.3).result == "timeout"
    lab.server.restore_exit()
    assert lab.workload.probe("udp", host=HOST4).seen == lab.server.exit.ipv4


def test_a_lossy_server_loses_some_and_not_all(lab: Lab) -> None:
    """A third lost each way leaves a good part of the echoes."""
    Client(lab, lab.server)
    connected(lab)
    lab.server.lossy(33)
    stream = lab.workload.stream(HOST4, protocol="udp", interval=0.005, timeout=0.05)
    eventually(lambda: len(stream.exchanges()) >= 60, timeout=20, what="60 exchanges")
    counters = stream.stop()
    assert counters["kinds"]["timeout"] > 5
    assert counters["kinds"]["answered"] > 5


def test_a_server_can_crash_restart_and_move(lab: Lab) -> None:
    """A crash closes the port; after a restart the client's next handshake succeeds."""
    client = Client(lab, lab.server)
    connected(lab)
    lab.server.kill()
    assert lab.workload.probe("udp", host=HOST4, timeout=0.3).result != "answered"
    lab.server.start()
    old, key = lab.server.endpoint, lab.server.keys.public
    new = lab.server.move(12)
    assert new != old
    client.namespace.run("wg", "set", client.interface, "peer", key, "remove")
    client.configure(lab.server)
    connected(lab)
    assert lab.workload.probe("tcp", host=HOST6).seen == lab.server.exit.ipv6


def test_a_forwarded_port_reaches_the_client_through_the_tunnel(lab: Lab) -> None:
    """An outsider who calls the exit's address arrives in the tunnel by his own address."""
    Client(lab, lab.server)
    connected(lab)
    lab.server.forward_port(6881)
    served = lab.workload.serve(echo("0.0.0.0", 6881), echo(CLIENT.ipv6, 6881))
    try:
        for source, target in zip(OUTSIDER, lab.server.exit, strict=True):
            answer = lab.internet.probe("tcp", host=target, port=6881, source=source)
            assert answer.seen == source
    finally:
        served.close()


def test_a_stream_reports_the_moment_when_its_flow_died(lab: Lab) -> None:
    """A live TCP connection answers, then it does not."""
    Client(lab, lab.server)
    connected(lab)
    stream = lab.workload.stream(HOST4, timeout=0.3)
    try:
        eventually(lambda: len(stream.exchanges()) > 3, timeout=5, what="exchanges")
        lab.server.cut()
        eventually(lambda: stream.exchanges()[-1]["result"] == "timeout", timeout=5, what="the end")
    finally:
        stream.close()


def test_two_servers_have_their_own_keys_endpoints_and_exits(make_lab: Callable[..., Lab]) -> None:
    """Each one serves the same client."""
    lab = make_lab(servers=2)
    first, second = lab.servers
    assert first.keys != second.keys
    assert not set(first.endpoint) & set(second.endpoint)
    Client(lab, second)
    connected(lab)
    assert lab.workload.probe("tcp", host=HOST4).seen == second.exit.ipv4


# -- gateway ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pid_namespace", [False, True])
def test_a_process_is_run_like_a_container_and_restarts_in_place(
    lab: Lab,
    pid_namespace: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Start, health, kill, start again, stop; mounts stay, other processes live on."""
    gateway = lab.gateway(
        argv=[sys.executable, "-c", STAND_IN], pid_namespace=pid_namespace, read_only_proc_sys=True
    )
    stream = lab.workload.stream(HOST4)
    gateway.write("/run/secrets/wireguard_private_key", "secret")
    assert gateway.status().code == 0
    gateway.start(gateway.env(EXTRA="1", DNS_ADDRESS=None))
    assert gateway.wait_for_state("connected").code == 200
    started = gateway.events(event="started")[0]
    assert (started["pid"] == 1) is pid_namespace
    assert "EXTRA" in started["environ"]
    assert "DNS_ADDRESS" not in started["environ"]
    assert Path(f"/proc/{gateway.pid}/comm").read_text().startswith("python")
    first = gateway.pid
    gateway.kill()
    assert gateway.wait() == (1 if pid_namespace else -signal.SIGKILL)
    assert gateway.status().code == 0
    gateway.restart()
    gateway.wait_healthy()
    assert gateway.pid != first
    code, output = gateway.execute("cat", "/run/secrets/wireguard_private_key")
    assert (code, output) == (0, "secret")
    assert gateway.execute("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")[0] != 0
    assert len(gateway.logs().splitlines()) >= 1
    assert len(gateway.logs(all_starts=True)) > len(gateway.logs())
    assert gateway.stop() == 3
    assert stream.exchanges()[-1]["result"] == "answered"
    stream.close()


def test_resolv_conf_secrets_and_config_belong_to_the_container(lab: Lab) -> None:
    """In-place writes are visible to attached workloads and to no other process."""
    before = Path("/etc/resolv.conf").read_bytes()
    gateway = lab.gateway()
    gateway.write("/config/wg0.conf", gateway.wg_quick(extra="PostUp = false"))
    assert "PostUp = false" in gateway.workload().run("cat", "/config/wg0.conf")
    gateway.workload().run("sh", "-c", "echo nameserver 192.0.2.1 > /etc/resolv.conf")
    assert gateway.resolv_conf() == "nameserver 192.0.2.1\n"
    assert Path("/etc/resolv.conf").read_bytes() == before
    assert "eth0" in gateway.workload().run("ls", "/sys/class/net")


def test_capabilities_devices_and_health_failures_can_be_arranged(lab: Lab) -> None:
    """What a container may lack, the lab can take away; a dead process is reported at once."""
    show = [
        sys.executable,
        "-c",
        "import os; print(os.listdir('/dev/net')); print(open('/proc/self/status').read())",
    ]
    bare = lab.gateway(argv=show, without_tun=True, capabilities=["net_admin"])
    bare.start()
    assert bare.wait() == 0
    assert bare.logs().startswith("[]")
    assert "CapEff:\t0000000000001000" in bare.logs()
    with pytest.raises(LabError, match="ended before it was healthy"):
        bare.wait_healthy()


def test_backends_are_chosen_by_the_environment_of_the_tests(lab: Lab) -> None:
    """The same tests run over every pair of backends."""
    environment = lab.gateway().env(family=6)
    assert environment["WIREGUARD_IMPLEMENTATION"] == os.environ.get("LAB_WIREGUARD", "auto")
    assert environment.get("FIREWALL_BACKEND") == os.environ.get("LAB_FIREWALL")
    assert environment["WIREGUARD_ENDPOINT_IP"] == lab.server.endpoint.ipv6


def test_processes_of_a_lab_end_with_it() -> None:
    """No process of the lab, its workloads or its servers is left."""
    with Lab() as lab:
        gateway = lab.gateway(argv=["sleep", "600"]).start()
        flood = lab.workload.flood("udp4")
        inside = [pid for ns in lab._namespaces() for pid in ns.pids()]  # noqa: SLF001
        assert {gateway.pid, flood.pid} <= set(inside)
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]
    assert "defunct" not in run(["ps", "-o", "stat,comm", "--ppid", str(os.getpid())])
