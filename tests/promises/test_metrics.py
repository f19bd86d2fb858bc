"""What is counted, as Prometheus and `gateway status` get it, against what happens."""

import http.client
import json
import socket
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.gateway import HEALTH, Gateway
from tests.lab.internet import INTERNET
from tests.lab.probes import ethernet, udp_packet
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4, lose_tunnel, send_frames
from tests.promtool import promtool

pytestmark = pytest.mark.lab

READ_EVERY = 3.0
"""Seconds between two readings of the kernel's counters."""

Samples = dict[tuple[str, str], float]


def page(gateway: Gateway) -> str:
    """Return the metrics as Prometheus gets them; no key is in them."""
    connection = http.client.HTTPConnection(*HEALTH)
    connection.sock = gateway.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.sock.settimeout(2 * PATIENCE)
    connection.sock.connect(HEALTH)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    connection.close()
    for secret in (gateway.client.private, gateway.server.preshared_key):
        assert secret not in text
    return text


def scraped(gateway: Gateway) -> Samples:
    """Return each sample by its name and the values of its labels, in their alphabet's order."""
    return {
        (
            sample.name.removeprefix("portcullis_"),
            " ".join(v for _, v in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(page(gateway))
        for sample in family.samples
    }


def wait_for_count(gateway: Gateway, labels: str, more_than: float) -> None:
    """Wait until more packets than that were counted as refused."""
    eventually(
        lambda: scraped(gateway).get(("refused_packets_total", labels), 0) > more_than,
        timeout=10,
        what=f"refused packets, {labels}",
        interval=0.2,
    )


def test_the_metrics_say_what_happened(lab: Lab) -> None:
    """State, age, bytes, reconnects by reason: before and after the tunnel was lost once."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    assert lab.workload.probe("tcp", host=INTERNET[0].ipv4).seen == lab.server.exit.ipv4
    eventually(lambda: scraped(gateway)["received_bytes_total", ""] > 200, timeout=5, what="bytes")
    first = scraped(gateway)
    assert (first["healthy", ""], first["state", "connected"], first["state", "locked"]) == (
        1,
        1,
        0,
    )
    assert 0 <= first["handshake_age_seconds", ""] < 30 * PATIENCE
    assert first["sent_bytes_total", ""] > 0
    assert (first["endpoint_switches_total", ""], first["drift_total", ""]) == (0, 0)
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    gateway.wait_healthy()
    assert scraped(gateway)["reconnects_total", "interface_lost"] == 1


def test_promtool_accepts_the_metrics_of_a_running_gateway(lab: Lab) -> None:
    """While it is closed, and when it is connected. They show why it is closed."""
    lab.server.cut()
    gateway = lab.gateway().start()
    gateway.wait_for_state("connecting")
    assert promtool("check", "metrics", given=page(gateway).encode()) == ""
    eventually(
        lambda: scraped(gateway)["reason", "no_handshake"] == 1, timeout=20, what="the reason"
    )
    lab.server.restore()
    gateway.wait_healthy()
    assert promtool("check", "metrics", given=page(gateway).encode()) == ""
    found = scraped(gateway)
    assert (found["reason", "server_answers"], found["reason", "no_handshake"]) == (1, 0)
    assert found["verified_age_seconds", ""] < 30 * PATIENCE
    body = gateway.status().body
    assert found["backend_info", f"{body['firewall']} {body['tunnel']}"] == 1
    started = found["process_start_time_seconds", ""]
    assert started == pytest.approx(time.time() - (time.monotonic() - gateway.started_at), abs=60)


def test_refused_packets_are_counted_by_family_and_direction(lab: Lab) -> None:
    """What workloads send past the tunnel, and what neighbours send in, over changes of rules."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    own = lab.uplink.gateway
    for version, address, host in (
        (4, own.ipv4, lab.uplink.router.ipv4),
        (6, own.ipv6, lab.uplink.router.ipv6),
    ):
        before = scraped(gateway)
        for _ in range(6):
            assert lab.workload.probe("udp", host=host).failed_fast
            lab.internet.probe("udp", host=address, timeout=0.05)
        for way in ("in", "out"):
            labels = f"{way} ipv{version}"
            wait_for_count(gateway, labels, before.get(("refused_packets_total", labels), 0))
    counted = scraped(gateway)
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    gateway.wait_healthy()
    after = scraped(gateway)
    for labels in ("in ipv4", "out ipv4", "in ipv6", "out ipv6"):
        name = ("refused_packets_total", labels)
        assert after[name] >= counted[name], "a counter never goes back"


def test_frames_that_the_guard_drops_are_counted(lab: Lab) -> None:
    """From a packet socket, past the firewall, over changes of rules; ordinary ones are not."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    host, name = INTERNET[0].ipv4, ("refused_packets_total", "guard any")
    eventually(lambda: name in scraped(gateway), timeout=10, what="the first reading")
    quiet = scraped(gateway)[name]
    assert lab.workload.probe("udp", host=host).result == "answered"
    time.sleep(2 * READ_EVERY)
    assert scraped(gateway)[name] == quiet, "control: what passes the firewall is not counted"
    frame = ethernet(lab.uplink.router_mac, OWN4) + udp_packet(OWN4, host, 40002, 7, b"past it")
    number = 7
    answers = send_frames(lab.workload, [{"device": "eth0", "frame": frame.hex()}] * number)
    assert set(answers) == {"ENOBUFS"}
    wait_for_count(gateway, "guard any", quiet + number - 1)
    assert scraped(gateway)[name] == quiet + number
    assert gateway.status().body["refused"]["any guard"] == quiet + number
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    gateway.wait_healthy()
    assert scraped(gateway)[name] >= quiet + number, "a counter never goes back"


def test_the_status_command_prints_all_of_it(lab: Lab) -> None:
    """For a script and for a person; an unhealthy gateway is exit code 1."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    code, output = gateway.execute(sys.executable, "-m", "gateway", "status", "--json")
    reported = json.loads(output)
    assert code == 0
    assert {
        "state",
        "reason",
        "endpoint",
        "handshake_age",
        "reconnects",
        "refused",
    } <= reported.keys()
    code, output = gateway.execute(sys.executable, "-m", "gateway", "status")
    assert code == 0
    assert "connected" in output
    assert f"{lab.server.endpoint.ipv4}:51820" in output
    lab.server.cut()
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    assert gateway.execute(sys.executable, "-m", "gateway", "status")[0] == 1
