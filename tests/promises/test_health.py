"""Health as clients of the gateway see it: codes, fields, and what does not disturb it."""

import json
import re
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.lab.gateway import HEALTH, PROJECT
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

FIELDS = {
    "state": str,
    "healthy": bool,
    "reason": str,
    "reason_code": str,
    "endpoint": str,
    "received": int,
    "sent": int,
    "endpoints": list,
    "firewall": str,
    "guard": bool,
    "tunnel": str,
    "limits": list,
}
"""What the answer has at least, besides the age of the handshake."""
MANY = 1000
HEALTHCHECK = (sys.executable, "-m", "healthcheck")


def ask(lab: Lab, request: bytes, timeout: float = 2) -> tuple[int, dict[str, str], bytes]:
    """Send a raw request from the namespace; return code, headers in lower case, and body."""
    client = lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    with client:
        client.settimeout(timeout * PATIENCE)
        client.connect(HEALTH)
        client.sendall(request)
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def get(lab: Lab, path: str = "/healthz", method: str = "GET") -> tuple[int, Any, bytes]:
    """Ask for `path` as HTTP/1.1 clients do."""
    return ask(lab, f"{method} {path} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())


def test_the_answer_has_every_field_in_each_state(lab: Lab) -> None:
    """503 with a reason without a server, 200 with the evidence once it answers."""
    lab.server.cut()
    gateway = lab.gateway().start()
    gateway.wait_for_state("connecting")
    for path in ("/", "/healthz", "/readyz"):
        code, headers, body = get(lab, path)
        reported = json.loads(body)
        assert code == 503
        assert headers["content-type"] == "application/json"
        assert not reported["healthy"]
        assert reported["reason"]
        assert reported["handshake_age"] is None
    lab.server.restore()
    gateway.restart().wait_healthy()
    code, headers, body = get(lab, "/")
    reported = json.loads(body)
    assert code == 200
    assert int(headers["content-length"]) == len(body)
    assert {name: type(reported[name]) for name in FIELDS} == FIELDS
    assert reported["endpoint"] == f"{lab.server.endpoint.ipv4}:{lab.server.port}"
    assert 0 <= reported["handshake_age"] < 60
    assert reported["received"] > 0
    assert reported["sent"] > 0
    assert (reported["state"], reported["healthy"]) == ("connected", True)


def test_only_get_and_head_of_known_paths_are_answered(lab: Lab) -> None:
    """HEAD without a body, POST refused, other paths unknown, nonsense refused."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    code, headers, body = get(lab, method="HEAD")
    assert (code, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(lab, method=method)[0] == 405
    assert get(lab, "/secrets")[0] == 404
    assert get(lab, "/healthz?verbose")[0] == 200
    assert ask(lab, b"this is not HTTP\r\n\r\n")[0] == 400
    assert ask(lab, b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n")[0] >= 400
    assert get(lab)[0] == 200


@pytest.mark.quiet
def test_a_thousand_clients_that_never_finish_disturb_nothing(lab: Lab) -> None:
    """The honest client is answered at once, and the answer stays true."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    with ExitStack() as stack:
        for number in range(MANY):
            client = lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
            stack.enter_context(client)
            client.setblocking(False)
            client.connect_ex(HEALTH)
            if number % 2:
                eventually(lambda client=client: sent(client), timeout=5, what="a connection")
        asked_at = time.monotonic()
        assert get(lab)[0] == 200
        assert time.monotonic() - asked_at < PATIENCE
        lab.operator.run("ip", "link", "del", "wg0")
        eventually(
            lambda: (health := gateway.status()).code == 200 and health.body["reconnects"],
            timeout=15,
            what="the loss, and the end of it",
        )
    assert get(lab)[0] == 200


def sent(client: socket.socket) -> bool:
    """Send the beginning of a request, if the connection is open or was ended by the server."""
    try:
        client.send(b"GET /healthz HT")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_the_health_check_reports_in_one_line_and_by_its_exit_code(lab: Lab) -> None:
    """No gateway, one that connects, one that is connected, one that has stopped."""
    gateway = lab.gateway()

    def check() -> tuple[int, str]:
        code, output = gateway.execute(*HEALTHCHECK)
        assert output.count("\n") == 1
        return code, output

    gateway.environment = {"PYTHONPATH": str(PROJECT)}
    code, line = check()
    assert code == 1
    assert "is the gateway running?" in line
    lab.server.cut()
    gateway.start().wait_for_state("connecting")
    code, line = check()
    assert code == 1
    assert re.match(r"unhealthy: connecting: ", line)
    lab.server.restore()
    gateway.restart().wait_healthy()
    assert check() == (0, "healthy: connected: the server answers\n")
    gateway.stop()
    assert check()[0] == 1


def test_the_health_check_and_the_server_find_each_other_by_one_variable(lab: Lab) -> None:
    """Another port, every address, IPv6; and no host outside reaches it unless it is listed."""
    for address in (":9000", "[::1]:9001", "127.0.0.1:9002"):
        gateway = lab.gateway()
        gateway.start(gateway.env(HEALTH_SERVER_ADDRESS=address))
        eventually(
            lambda gateway=gateway: gateway.execute(*HEALTHCHECK)[0] == 0,
            timeout=15,
            what=f"health at {address}",
            interval=0.1,
        )
        port = int(address.rpartition(":")[2])
        for own in lab.uplink.gateway:
            answer = lab.internet.probe("tcp", host=own, port=port, timeout=0.2)
            assert answer.result != "connected"
        code, output = gateway.execute(*gateway.argv, "status")
        assert code == 0
        assert "connected" in output
        assert gateway.stop() == 0


def test_status_for_a_person_and_for_a_script_says_the_same(lab: Lab) -> None:
    """Exit code 0 when healthy, 1 when not or without an answer."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    code, output = gateway.execute(*gateway.argv, "status", "--json")
    reported = json.loads(output)
    assert code == 0
    code, shown = gateway.execute(*gateway.argv, "status")
    assert code == 0
    for name in ("state", "reason", "endpoint", "firewall", "tunnel"):
        assert str(reported[name]) in shown, name
    lab.server.cut()
    gateway.restart().wait_for_state("connecting")
    assert gateway.execute(*gateway.argv, "status")[0] == 1
    gateway.stop()
    code, output = gateway.execute(*gateway.argv, "status")
    assert code == 1
    assert "no answer" in output
