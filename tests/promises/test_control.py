"""The control API in both layouts: who reaches it, what it can do, and what breaking it does not.

The controls: the same client reaches the port once it is listed, and the same flood got out before
there was a gateway.
"""

import http.client
import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.model import INTERFACE
from tests.lab.gateway import Gateway
from tests.lab.internet import OUTSIDER
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4
from tests.promises.test_vault_gateway import Site
from tests.promises.witness import flooded, links, not_refused_at_once, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1")]

PORT = 8000
KEY = "the-key-of-the-control-api-in-the-lab"
STOPPED, RUNNING = {"status": "stopped"}, {"status": "running"}
MANY = 1000
ON = {"HTTP_CONTROL_SERVER_ADDRESS": f":{PORT}", "DNS_SERVER": "off"}


def ask(lab: Lab, route: str, body: object = None, *, key: str = KEY) -> tuple[int, Any]:
    """Ask from the internet, and return the code and what is answered."""
    method, path = route.split(" ")
    headers = {"X-API-Key": key} if key else {}

    def asked() -> tuple[int, Any]:
        client = http.client.HTTPConnection(
            OWN4, PORT, timeout=20 * PATIENCE, source_address=(OUTSIDER.ipv4, 0)
        )
        client.request(method, path, None if body is None else json.dumps(body), headers)
        reply = client.getresponse()
        answered = reply.status, json.loads(reply.read())
        client.close()
        return answered

    return lab.internet_namespace.inside(asked)


def serving(gateway: Gateway) -> Path:
    """Return what /proc has of the process that serves the API."""
    found = [
        it for it in Path("/proc").iterdir() if it.name.isdigit() and is_child(it, gateway.pid)
    ]
    assert len(found) == 1
    return found[0]


def is_child(process: Path, parent: int) -> bool:
    """Return whether a process serves the API and is a child of `parent`."""
    try:
        stat = (process / "stat").read_text().rpartition(")")[2].split()
        return int(stat[1]) == parent and b"control.process" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def is_back(gateway: Gateway, starts: int) -> bool:
    """Return whether the API is served by the process that was started as number `starts`."""
    (service,) = gateway.status().body["services"]
    return bool(service["is_running"] and service["starts"] == starts)


def reached(lab: Lab, timeout: float = 1.0) -> str:
    """Return what comes of a connection from the internet."""
    return lab.internet.probe(
        "tcp", host=OWN4, port=PORT, source=OUTSIDER.ipv4, timeout=timeout
    ).result


def memory_of(process: Path) -> bytes:
    """Return everything that a process can write to."""
    found = b""
    with (process / "mem").open("rb") as memory:
        for line in (process / "maps").read_text().splitlines():
            where, rights, *_ = line.split()
            if rights.startswith("rw"):
                first, last = (int(it, 16) for it in where.split("-"))
                memory.seek(first)
                found += memory.read(last - first)
    return found


def status_of(process: Path) -> dict[str, str]:
    """Return the lines of a process's status by their names."""
    lines = (process / "status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def rules(lab: Lab) -> str:
    """Return the rules of the gateway's namespace, without counters."""
    return lab.operator.run("nft", "--stateless", "list", "ruleset")


def breaks(lab: Lab, gateway: Gateway) -> None:
    """Halt, kill and flood the process, and check that health and rules stay."""
    before = rules(lab)
    process = serving(gateway)
    os.kill(int(process.name), signal.SIGSTOP)
    time.sleep(1)
    assert gateway.status().code == 200
    os.kill(int(process.name), signal.SIGKILL)
    eventually(lambda: is_back(gateway, 2), timeout=10, what="another process")
    assert ask(lab, "POST /api/v1/reload")[1]["outcome"] == "unchanged"
    with ExitStack() as stack:
        for _ in range(MANY):
            client = lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
            stack.enter_context(client)
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", PORT))
        assert ask(lab, "GET /v1/portforward") == (200, {"port": 0, "ports": []})
        assert gateway.status().code == 200
    assert rules(lab) == before
    assert KEY not in gateway.logs()
    orders = [it["order"] for it in gateway.events(event="control API order")]
    assert orders == ["pause", "reconnect", "resume", "reload"]


@pytest.mark.firewall("nftables")
def test_a_client_outside_pauses_and_resumes_and_a_broken_process_changes_nothing(
    lab: Lab,
) -> None:
    """It is reached where its port is listed, by who has the key; its process has no rights."""
    control = flooded(lab, rate=50)
    gateway = lab.gateway()
    gateway.write("/run/secrets/http_control_server_api_key", KEY)
    gateway.write("/run/secrets/firewall_input_ports", "1")
    gateway.start(gateway.env(LOG_FORMAT="json", **ON)).wait_healthy()
    assert reached(lab, 0.4 * PATIENCE) == "timeout"
    gateway.write("/run/secrets/firewall_input_ports", f"{PORT}/tcp")
    gateway.signal(signal.SIGHUP)
    eventually(lambda: reached(lab) == "connected", timeout=10, what="the listed port")

    process = serving(gateway)
    assert KEY.encode() not in memory_of(process), "its credential is a digest"
    status = status_of(process)
    assert status["Uid"].split() == ["65534"] * 4
    assert (int(status["CapPrm"], 16), status["NoNewPrivs"]) == (0, "1")
    assert KEY not in (process / "cmdline").read_text()

    assert ask(lab, "GET /v1/vpn/status") == (200, RUNNING)
    reported = ask(lab, "GET /api/v1/status")[1]
    assert reported.keys() == gateway.status().body.keys()
    for route in ("PUT /v1/vpn/status", "POST /api/v1/next", "GET /v1/version"):
        assert ask(lab, route, STOPPED, key="")[0] == 401
        assert ask(lab, route, STOPPED, key="wrong")[0] == 401
    assert gateway.status().code == 200

    assert ask(lab, "PUT /v1/vpn/status", STOPPED) == (200, {"outcome": "stopped"})
    since = time.monotonic()
    eventually(lambda: INTERFACE not in links(lab), timeout=3, what="no interface")
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    assert ask(lab, "GET /v1/vpn/status") == (200, STOPPED)
    assert ask(lab, "POST /api/v1/reconnect")[1]["code"] == "is_paused"
    assert ask(lab, "PUT /v1/vpn/status", RUNNING) == (200, {"outcome": "running"})
    gateway.wait_healthy()
    control.stop()
    others = [it for it in lab.leaks(since) if PORT not in {it.source_port, it.destination_port}]
    assert others == []
    breaks(lab, gateway)


def test_in_a_vault_the_port_is_the_gateways(lab: Lab) -> None:
    """A workload of the vault does not answer in its place; a pause closes the vault."""
    site = Site(lab)
    site.gateway.write("/run/secrets/http_control_server_api_key", KEY)
    listed = {"FIREWALL_INPUT_PORTS": f"{PORT - 1}-{PORT + 1}"}
    site.start(**listed, **ON)
    site.works()
    assert ask(lab, "PUT /v1/vpn/status", STOPPED) == (200, {"outcome": "stopped"})
    since = time.monotonic()
    eventually(lambda: INTERFACE not in site.links(), timeout=3, what="no interface")
    site.is_closed()
    assert ask(lab, "PUT /v1/vpn/status", RUNNING) == (200, {"outcome": "running"})
    site.gateway.wait_healthy()
    site.works()
    others = [it for it in lab.leaks(since) if PORT not in {it.source_port, it.destination_port}]
    assert others == []
