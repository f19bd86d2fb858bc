"""The configuration is read again while the gateway runs: only what differs changes.

Each variable is a file here, as Docker mounts secrets, and the server is in a wg-quick file.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.system.order_signals import SIGNALS
from tests.lab.gateway import PROJECT, Gateway, Health
from tests.lab.hosts import ECHO_PORT, echo
from tests.lab.internet import LAN_HOST, LAN_SUBNETS, OUTSIDER
from tests.lab.process import PATIENCE, eventually
from tests.lab.server import CLIENT, Server
from tests.lab.topology import Lab
from tests.lab.workload import Traffic
from tests.promises.stages import OWN4
from tests.promises.test_p06_flows import answered_since, wait_until_alive
from tests.promises.test_p16_secrets import leaks_key, processes
from tests.promises.witness import HOST4

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

RELOAD = (sys.executable, "-m", "gateway", "reload")
STATUS = (sys.executable, "-m", "gateway", "status")
SUBNETS, INPUT, TUNNEL_PORTS = (
    "/run/secrets/firewall_outbound_subnets",
    "/run/secrets/firewall_input_ports",
    "/run/secrets/firewall_vpn_input_ports",
)
PORT = 6881
LATER = 0.5
"""Seconds in which a flow that lost its path tries to go on: retransmissions begin after 0.2 s."""
KEPT = {"LOG_LEVEL", "LOG_FORMAT", "FIREWALL_BACKEND", "WIREGUARD_IMPLEMENTATION"}


def replace_file(gateway: Gateway, path: str, text: str) -> None:
    """Put another file in place of the one at `path`, in one step, as an engine does."""
    gateway.write(f"{path}.new", text)
    new = gateway.container.root / f"{path}.new".lstrip("/")
    new.rename(gateway.container.root / path.lstrip("/"))


def connected(lab: Lab, **files: str) -> Gateway:
    """Return a healthy gateway whose configuration is in `files`, by the names of variables."""
    gateway = lab.gateway()
    gateway.write("/config/wg0.conf", gateway.wg_quick())
    for name, text in files.items():
        gateway.write(f"/run/secrets/{name.lower()}", text)
    gateway.start({name: text for name, text in gateway.env().items() if name in KEPT})
    gateway.wait_healthy()
    return gateway


def reload(gateway: Gateway, expected: int = 0) -> str:
    """Run `gateway reload` in the container and return what it prints."""
    code, output = gateway.execute(*RELOAD)
    assert code == expected, (output, gateway.logs())
    return output


def marked(lab: Lab, marker: str, since: float) -> int:
    """Return how many frames with `marker` have left unencrypted since then."""
    return len(lab.capture.containing(marker, since))


def handshake(lab: Lab, server: Server | None = None) -> object:
    """Return when the server had its last handshake with the gateway."""
    server = server or lab.server
    return server.peer()["handshake"]


@pytest.fixture
def tunnel_flow(lab: Lab) -> Callable[[], Traffic]:
    """Return a function that begins a TCP connection through the tunnel."""
    return lambda: lab.workload.stream(HOST4, protocol="tcp", marker="inside")


@pytest.mark.promise("P6", "P7")
@pytest.mark.both_firewalls
def test_a_lan_hole_opens_and_closes_and_the_tunnel_notices_nothing(
    lab: Lab, tunnel_flow: Callable[[], Traffic]
) -> None:
    """Flows through the hole end at once with it; a connection in the tunnel continues.

    Control: packets of the flows to the LAN were seen outside before.
    """
    gateway = connected(lab)
    inside = tunnel_flow()
    wait_until_alive([inside])
    assert lab.workload.probe("tcp", host=LAN_HOST.ipv4).seen == lab.server.exit.ipv4
    last, began = handshake(lab), time.monotonic()

    replace_file(gateway, SUBNETS, LAN_SUBNETS.ipv4)
    output = reload(gateway)
    assert output.splitlines()[0] == "accepted"
    assert "changed: FIREWALL_OUTBOUND_SUBNETS" in output
    assert lab.workload.probe("tcp", host=LAN_HOST.ipv4).seen == OWN4
    flows = [
        lab.workload.stream(LAN_HOST.ipv4, protocol=protocol, marker="to-lan", timeout=0.2)
        for protocol in ("tcp", "udp")
    ]
    wait_until_alive(flows)
    assert marked(lab, "to-lan", 0.0), "control"

    (gateway.container.root / SUBNETS.lstrip("/")).unlink()
    output = reload(gateway)
    closed_at = time.monotonic()
    assert "changed: FIREWALL_OUTBOUND_SUBNETS" in output
    lab.capture.quiet_for(LATER)
    assert lab.leaks(closed_at) == []
    assert answered_since(flows, closed_at) == []
    assert answered_since([inside], closed_at), "it continues"
    assert {it["result"] for it in inside.exchanges() if it["at"] > began} == {"answered"}
    assert handshake(lab) == last
    assert gateway.status().body["reconnects"] == {}


@pytest.mark.promise("P8", "P9")
@pytest.mark.both_firewalls
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_flow_from_outside_ends_with_its_port_on_the_list(lab: Lab, protocol: str) -> None:
    """At the uplink and in the tunnel, also while it is in use; that of another port continues."""
    kept = PORT + 1
    gateway = connected(
        lab, FIREWALL_INPUT_PORTS=f"{PORT},{kept}", FIREWALL_VPN_INPUT_PORTS=f"{PORT}"
    )
    served = lab.workload.serve(
        *(echo(address, port) for address in (OWN4, CLIENT.ipv4) for port in (PORT, kept))
    )
    lab.server.forward_port(PORT)
    common = {"protocol": protocol, "source": OUTSIDER.ipv4, "timeout": 0.2}
    at_uplink, stays, in_tunnel = (
        lab.internet.stream(host, port=port, marker=marker, **common)
        for host, port, marker in (
            (OWN4, PORT, "at-uplink"),
            (OWN4, kept, "it-stays"),
            (lab.server.exit.ipv4, PORT, "in-tunnel"),
        )
    )
    wait_until_alive([at_uplink, stays, in_tunnel])
    replace_file(gateway, INPUT, str(kept))
    replace_file(gateway, TUNNEL_PORTS, str(kept))
    output = reload(gateway)
    closed_at = time.monotonic()
    assert "changed: FIREWALL_INPUT_PORTS, FIREWALL_VPN_INPUT_PORTS" in output
    lab.capture.quiet_for(LATER)
    assert answered_since([at_uplink, in_tunnel], closed_at) == []
    assert answered_since([stays], closed_at), "control"
    del served


@pytest.mark.promise("P1")
@pytest.mark.both_firewalls
def test_another_server_takes_over_and_nothing_leaks_meanwhile(
    make_lab: Callable[..., Lab],
) -> None:
    """A flood of every kind is sent all along; control: it was seen before the gateway began."""
    lab = make_lab(servers=2)
    flood = lab.workload.flood(
        "udp4", "udp6", "device4", "mark4", "raw4", "tcp4", marker="flooding", rate=2000
    )
    eventually(lambda: marked(lab, "flooding", 0.0), timeout=5, what="the flood, as control")
    first, second = lab.servers
    gateway = connected(lab)
    since = time.monotonic()
    assert lab.workload.probe("tcp", host=HOST4).seen == first.exit.ipv4
    replace_file(gateway, "/config/wg0.conf", gateway.wg_quick(second))
    output = reload(gateway)
    assert "changed: the tunnel" in output
    gateway.wait_healthy()
    asked_at = time.monotonic()
    assert lab.workload.probe("tcp", host=HOST4).seen == second.exit.ipv4
    assert gateway.status().body["endpoint"].startswith(second.endpoint.ipv4)
    lab.capture.quiet_for(0.1)
    sent = flood.stop()
    assert sent["sent"] > 0
    assert lab.leaks(since) == []
    late = [it for it in lab.capture.frames(asked_at) if it.destination in first.endpoint]
    assert late == [], "nothing goes to the former server any more"
    assert dict(gateway.status().body["reconnects"]) == {"reconfigured": 1}


@pytest.mark.promise("P1")
@pytest.mark.both_firewalls
def test_a_flood_gets_nothing_out_while_holes_come_and_go(lab: Lab) -> None:
    """Four changes of rules under load; control: the flood was seen before the gateway began."""
    flood = lab.workload.flood(
        "udp4", "udp6", "device4", "device6", "mark4", "raw4", "tcp4", marker="flooding", rate=3000
    )
    eventually(lambda: marked(lab, "flooding", 0.0), timeout=5, what="the flood, as control")
    gateway = connected(lab)
    since = time.monotonic()
    for subnets, ports in ((LAN_SUBNETS.ipv4, "8080"), ("", ""), (LAN_SUBNETS.ipv6, "1"), ("", "")):
        replace_file(gateway, SUBNETS, subnets)
        replace_file(gateway, INPUT, ports)
        output = reload(gateway)
        assert "changed: FIREWALL_OUTBOUND_SUBNETS, FIREWALL_INPUT_PORTS" in output
    assert flood.stop()["sent"] > 0
    lab.capture.quiet_for(0.1)
    assert lab.leaks(since) == []
    assert gateway.status().body["reconnects"] == {}


def test_an_idle_connection_outlives_a_new_handshake_with_the_same_address(lab: Lab) -> None:
    """Only the keepalive differs, which leads through the closed state."""
    gateway = connected(lab)
    with contextlib.closing(
        lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    ) as channel:
        channel.settimeout(5 * PATIENCE)
        channel.connect((HOST4, ECHO_PORT))
        assert channel.recv(200), "who we are"
        text = gateway.wg_quick().replace("PersistentKeepalive = 25", "PersistentKeepalive = 20")
        replace_file(gateway, "/config/wg0.conf", text)
        reload(gateway)
        gateway.wait_healthy()
        assert gateway.status().body["reconnects"] == {"reconfigured": 1}, "control"
        channel.sendall(b"continues\n")
        assert channel.recv(200) == b"continues\n"


@pytest.mark.promise("P2")
def test_a_wrong_configuration_is_reported_in_full_and_changes_nothing(lab: Lab) -> None:
    """By the command, in the log, and in the status, which stays green."""
    gateway = connected(lab, FIREWALL_OUTBOUND_SUBNETS=LAN_SUBNETS.ipv4)
    last = handshake(lab)
    replace_file(gateway, INPUT, "http")
    replace_file(gateway, SUBNETS, "0.0.0.0/0")
    replace_file(gateway, "/config/wg0.conf", "[Interface]\nPrivateKey = short\n")
    output = reload(gateway, expected=2)
    assert output.splitlines()[0] == "refused"
    wanted = ("/run/secrets/firewall_input_ports: 'http' is not a port", "0.0.0.0/0 is everything")
    for text in (*wanted, "/config/wg0.conf line 2", "has no [Peer]"):
        assert text in output, output
    health = gateway.status()
    assert (health.code, health.body["reloads"]) == (200, {"refused": 1})
    assert len(health.body["reload"]["problems"]) == health.body["reload"]["found"] >= 4
    code, shown = gateway.execute(*STATUS)
    assert code == 0
    assert wanted[0] in shown
    logged = {it["variable"] for it in gateway.events(event="invalid configuration")}
    assert {"/run/secrets/firewall_input_ports", "/config/wg0.conf line 2"} <= logged
    assert lab.workload.probe("tcp", host=LAN_HOST.ipv4).seen == OWN4, "the former hole"
    assert (handshake(lab), health.body["reconnects"]) == (last, {})

    replace_file(gateway, INPUT, "8080")
    replace_file(gateway, SUBNETS, LAN_SUBNETS.ipv4)
    replace_file(gateway, "/config/wg0.conf", gateway.wg_quick())
    assert "changed: FIREWALL_INPUT_PORTS\n" in reload(gateway)
    assert "unchanged" in reload(gateway)
    assert handshake(lab) == last


def test_what_needs_a_restart_is_named_and_stays(lab: Lab) -> None:
    """The rest is taken over; the exit code says that something is left to do."""
    gateway = connected(lab)
    running = gateway.status().body["tunnel"]
    other = "userspace" if running == "kernelspace" else "kernelspace"
    replace_file(gateway, "/run/secrets/wireguard_implementation", other)
    replace_file(gateway, INPUT, "8080")
    if "WIREGUARD_IMPLEMENTATION" in gateway.environment:
        assert gateway.environment["WIREGUARD_IMPLEMENTATION"] != other
    output = reload(gateway, expected=1)
    assert "changed: FIREWALL_INPUT_PORTS" in output
    assert "needs a restart: WIREGUARD_IMPLEMENTATION" in output
    assert gateway.status().body["tunnel"] == running


@pytest.mark.parametrize("pid_namespace", [True, False], ids=["process 1", "any process"])
def test_a_request_before_there_is_a_loop_ends_nothing_and_is_answered(
    lab: Lab, *, pid_namespace: bool
) -> None:
    """From the lock on; before that, the kernel itself ignores it for process 1."""
    gateway = lab.gateway(pid_namespace=pid_namespace).start()
    eventually(lambda: _blocks_requests(gateway), timeout=10, what="the lock", interval=0.001)
    for _ in range(50):
        gateway.signal(signal.SIGHUP)
        time.sleep(0.005)
    gateway.wait_healthy()
    answered = eventually(lambda: gateway.status().body.get("reload"), timeout=10, what="an answer")
    assert answered["outcome"] == "unchanged"


def _blocks_requests(gateway: Gateway) -> bool:
    """Return whether the gateway has locked, and blocks the signals that it answers.

    While it starts a program, and before it is itself one, all signals are blocked for a moment.
    """
    place = Path(f"/proc/{gateway.pid}")
    try:
        command = (place / "cmdline").read_text("utf-8").split("\0")[:-1]
        lines = (place / "status").read_text("utf-8").splitlines()
    except OSError:
        return False
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    answered = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, *SIGNALS.values())
    wanted = sum(1 << (number - 1) for number in answered)
    return command == gateway.argv and int(fields.get("SigBlk", "0"), 16) == wanted


@pytest.mark.promise("P16")
def test_many_requests_share_a_reading_and_no_process_shows_a_key(lab: Lab) -> None:
    """Fifty in a second are read a few times; what the reader has is in no argument of it."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    seen: set[str] = set()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        gateway.signal(signal.SIGHUP)
        for name, data in processes(lab, without=gateway.pid):
            assert not leaks_key(lab, data), name
            seen.add("reader" if b"gateway.settings" in data else "")
    assert "reader" in seen, "control: the reading process was looked at"

    def last() -> Health | None:
        health = gateway.status()
        time.sleep(2.5)
        return health if gateway.status().body["reloads"] == health.body["reloads"] else None

    health = eventually(last, timeout=20, what="the last answer")
    assert 1 <= health.body["reloads"]["unchanged"] <= 4
    assert health.code == 200


def test_without_a_gateway_the_command_says_so_and_is_not_one(lab: Lab) -> None:
    """It closes nothing: what was open stays so."""
    gateway = lab.gateway(pid_namespace=False)
    gateway.environment = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    code, output = gateway.execute(*RELOAD)
    assert code == 1
    assert "no gateway is seen from here" in output
    assert lab.workload.probe("tcp", host=HOST4).result == "connected"
