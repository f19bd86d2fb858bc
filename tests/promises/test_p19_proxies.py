"""P19: a proxy reaches the tunnel and nothing else, whatever its clients ask for.

Each target that a proxy may not reach is reached by a workload in the same namespace: that is the
control. The clients are curl in the namespace, on the LAN and on the internet.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.model.proxies import PROXY_USER
from tests.lab.frames import TCP, reply_from
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo, http
from tests.lab.internet import INTERNET, LAN_HOST
from tests.lab.process import eventually
from tests.lab.server import CLIENT
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.proxying import (
    HTTP,
    OK,
    SOCKS,
    WAIT,
    as_proxy,
    children,
    curl,
    running,
    started,
    through,
    wait_running,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P19")]

KINDS = pytest.mark.parametrize("kind", ["http", "connect", "socks5h"])
SERVICE = 8123
"""The port of a workload's service, which is in no list."""
SERVICE6 = 8124
"""The same at every IPv6 address."""

ASKS = """
import socket, sys
kind, host, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
asking = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
asking.settimeout(3)
asking.connect((host, int(port)))
question = bytes.fromhex("000101000001000000000000") + b"\\3web\\7example\\0\\0\\1\\0\\1"
if kind == "udp":
    asking.send(question)
    asking.recv(2048)
"""
"""Connects, or sends a question by UDP and waits for an answer."""

HEADERS = """
import socket, sys
for endless in (False, True):
    asking = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    asking.settimeout(5)
    try:
        asking.sendall(b"GET http://203.0.113.10/ HTTP/1.1\\r\\n")
        for number in range(64):
            asking.sendall(b"x" * (1 << 20) if endless else b"x-%d: y\\r\\n" % number * (1 << 16))
    except OSError:
        pass
    asking.close()
"""
"""Sends many headers, then one that does not end."""

IDLERS = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5))
print("ready", flush=True)
time.sleep(60)
"""
"""Keeps many connections on which nothing is said."""

HELD = """
import socket, sys
asking = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
asking.sendall(b"\\5\\1\\0")
asking.recv(2)
asking.sendall(b"\\5\\1\\0\\1" + socket.inet_aton(sys.argv[2]) + (7).to_bytes(2, "big"))
asking.recv(10)
asking.recv(100)
print("ready", flush=True)
try:
    asking.recv(1)
except OSError:
    pass
print("ended", flush=True)
"""
"""Keeps a connection to an echo through the SOCKS5 proxy."""


@dataclass(frozen=True)
class Site:
    """A gateway with both proxies, and a workload that serves."""

    lab: Lab
    gateway: Gateway


@pytest.fixture(scope="module")
def site(trusted: Authority) -> Iterator[Site]:
    """Return the shared site, connected; its proxies are open to everyone."""
    with Lab() as lab:
        gateway = wait_running(started(lab, trusted))
        lab.workload.serve(
            http("0.0.0.0", SERVICE),
            http("::1", SERVICE),
            http("::", SERVICE6),
            echo("127.0.0.1", SERVICE + 2),
            echo("::1", SERVICE + 2),
        )
        yield Site(lab, gateway)


@KINDS
def test_clients_reach_the_internet_through_the_tunnel(site: Site, kind: str) -> None:
    """By name and address, in both families: from the namespace, the LAN and the internet."""
    lab, host = site.lab, site.lab.uplink.gateway.ipv4
    for client, at in ((lab.workload, "127.0.0.1"), (lab.lan, host), (lab.internet, host)):
        for target in ("http://web.example/", f"http://{INTERNET[1].ipv4}/"):
            answer = through(client, kind, at, target)
            assert answer.arrived, f"{target}: {answer}"
            assert answer.body == lab.server.exit.ipv4, "it came out at the server"
    six = f"http://[{INTERNET[1].ipv6}]/"
    assert through(lab.workload, kind, "::1", six).arrived
    assert through(lab.lan, kind, lab.uplink.gateway.ipv6, six).arrived
    assert not lab.capture.containing("web"), "the name was asked in the tunnel"


FORBIDDEN = {
    "loopback": f"http://127.0.0.1:{SERVICE}/",
    "more of loopback": f"http://127.0.0.2:{SERVICE}/",
    "IPv6 loopback": f"http://[::1]:{SERVICE}/",
    "mapped loopback": f"http://[::ffff:127.0.0.1]:{SERVICE}/",
    "no address": f"http://0.0.0.0:{SERVICE}/",
    "the uplink's address": f"http://172.30.0.2:{SERVICE}/",
    "the tunnel's address": f"http://{CLIENT.ipv4}:{SERVICE}/",
    "the health server": "http://127.0.0.1:9999/healthz",
    "the health server at the uplink": "http://172.30.0.2:9999/healthz",
    "the LAN": f"http://{LAN_HOST.ipv4}/",
    "the LAN by IPv6": f"http://[{LAN_HOST.ipv6}]/",
    "a name of loopback": f"http://localhost:{SERVICE}/",
    "a name that is bound again": f"http://loopback.example:{SERVICE}/",
    "a name of the LAN": "http://lan.example/",
    "a name of the uplink": f"http://uplink.example:{SERVICE}/",
    "a name of the tunnel": f"http://tunnel.example:{SERVICE}/",
}


@KINDS
@pytest.mark.both_firewalls
def test_nothing_else_is_reached_through_a_proxy(site: Site, kind: str) -> None:
    """Not the namespace, its services and addresses, nor a listed LAN; a workload reaches each."""
    lab, host = site.lab, site.lab.uplink.gateway.ipv4
    workload = site.gateway.workload()
    direct = {what: curl(workload, url) for what, url in FORBIDDEN.items()}
    assert all(it.arrived for it in direct.values()), f"control: {direct}"
    before = len(lab.arrivals("lan"))
    for what, url in FORBIDDEN.items():
        for client, at in ((lab.workload, "127.0.0.1"), (lab.lan, host)):
            answer = through(client, kind, at, url)
            assert not answer.arrived, f"{what}: {answer}"
            assert answer.of_proxy != OK, f"{what}: {answer}"
    assert len(lab.arrivals("lan")) == before, "nothing came to the LAN"


@pytest.mark.both_firewalls
@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_confines_the_user_whatever_the_program_does(site: Site, family: int) -> None:
    """Any program with the user of the proxies gets into the tunnel, and by UDP to the resolver."""
    lab, workload = site.lab, site.gateway.workload(capabilities=None)

    def reaches(kind: str, host: str, port: int, *, confined: bool = True) -> bool:
        words = [sys.executable, "-I", "-S", "-c", ASKS, kind, host, str(port)]
        argv = as_proxy(workload, *words) if confined else workload.command(words)
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    host = (lambda it: it.ipv6) if family == 6 else (lambda it: it.ipv4)
    here = "::1" if family == 6 else "127.0.0.1"
    assert reaches("tcp", host(INTERNET[0]), 80)
    assert reaches("udp", host(INTERNET[0]), 53)
    refused = [
        ("tcp", host(LAN_HOST), 80),
        ("udp", host(LAN_HOST), 7),
        ("tcp", here, SERVICE),
        ("tcp", host(lab.uplink.gateway), SERVICE6 if family == 6 else SERVICE),
        ("tcp", host(CLIENT), SERVICE6 if family == 6 else SERVICE),
        ("udp", here, SERVICE + 2),
    ]
    for kind, to, port in refused:
        assert reaches(kind, to, port, confined=False), f"control: {kind} {to} {port}"
        assert not reaches(kind, to, port), f"{kind} {to} {port}"
    if family == 4:
        assert reaches("udp", here, 53)
        assert reaches("tcp", here, 53, confined=False), "control"
        assert not reaches("tcp", here, 53), "a client could get to the resolver by TCP"


def test_a_proxy_has_no_rights_and_its_limits(site: Site) -> None:
    """Each has the user, no capability but that for small ports, and limits of its resources."""
    for name, pid in children(site.gateway).items():
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(PROXY_USER)}, name
        assert fields["Groups"].strip() == ""
        assert fields["NoNewPrivs"] == "1"
        assert int(fields["CapPrm"], 16) & ~(1 << 10) == 0
        limits = Path(f"/proc/{pid}/limits").read_text("ascii")
        assert re.search(r"Max open files +4096 ", limits)
        assert re.search(r"Max address space +536870912 ", limits)


def test_huge_and_endless_headers_leave_the_proxy_alive(site: Site) -> None:
    """A client that sends 64 MiB of headers gets no more of its memory than is allowed."""
    lab = site.lab
    before = children(site.gateway)["http proxy"]
    lab.workload.run(sys.executable, "-I", "-S", "-c", HEADERS, str(HTTP))
    assert through(lab.workload, "http", "127.0.0.1", f"http://{INTERNET[0].ipv4}/").arrived
    after = children(site.gateway)["http proxy"]
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{after}/status").read_text("ascii"))
    assert peak
    assert after != before or int(peak[1]) < 200 << 10, peak[0]


def test_clients_that_say_nothing_do_not_keep_others_out(site: Site) -> None:
    """Several hundred idle connections to each; those that are too many are hung up on."""
    lab = site.lab
    for port, kind in ((SOCKS, "socks5h"), (HTTP, "http")):
        script = [sys.executable, "-I", "-S", "-c", IDLERS, str(port), "200"]
        idle = lab.household.start(lab.workload.command(script), f"idlers{port}")
        idle.wait_for("ready")
        target = f"http://{INTERNET[0].ipv4}/"
        assert through(lab.lan, kind, lab.uplink.gateway.ipv4, target).arrived
        idle.close()


def test_a_killed_proxy_is_started_again(site: Site) -> None:
    """Health and the metrics count it; the tunnel carries traffic meanwhile."""
    before = children(site.gateway)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: (
            children(site.gateway).keys() == before.keys()
            and not set(children(site.gateway).values()) & set(before.values())
            and running(site.gateway) == set(before)
        ),
        timeout=10,
        what="other processes",
    )
    assert site.gateway.status().code == 200
    for kind in ("http", "socks5h"):
        target = f"http://{INTERNET[0].ipv4}/"
        assert through(site.lab.workload, kind, "127.0.0.1", target).arrived
    listed = {it["name"]: it for it in site.gateway.status().body["services"]}
    assert all(listed[name]["starts"] >= 2 for name in before)


def test_connections_end_with_the_tunnel(site: Site) -> None:
    """Without one, requests fail at once and nothing leaves; with it they work again.

    It is the last test of the file, because it takes the tunnel down.
    """
    lab, host = site.lab, site.lab.uplink.gateway.ipv4
    script = [sys.executable, "-I", "-S", "-c", HELD, str(SOCKS), INTERNET[0].ipv4]
    held = lab.household.start(lab.workload.command(script), "held")
    held.wait_for("ready")
    since = time.monotonic()
    lab.server.cut()
    lab.gateway_namespace.run("ip", "link", "del", "wg0")
    held.wait_for("ended", timeout=10)
    site.gateway.wait_unhealthy()
    for kind in ("http", "socks5h"):
        began = time.monotonic()
        assert not through(lab.lan, kind, host, f"http://{INTERNET[0].ipv4}/").arrived
        assert time.monotonic() - began < 0.75 * WAIT, kind
    answers = [reply_from(port, TCP) for port in (HTTP, SOCKS)]
    assert lab.leaks(since, allowed=answers) == []
    lab.server.restore()
    wait_running(site.gateway)
    for kind in ("http", "socks5h"):
        assert through(lab.lan, kind, host, f"http://{INTERNET[0].ipv4}/").arrived
