"""Lists of blocked names: what the gateway's own resolver answers, and what large lists cost."""

import os
import sys
from pathlib import Path

import pytest

from gateway.policy.blocked import MOST_NAMES
from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.server import RESOLVED
from tests.lab.topology import Lab
from tests.promises.test_own_resolver import child_of

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

HOSTS, ZONE = "/config/ads.hosts", "/config/bad.rpz"
MOST_MEMORY = 300


def asked(lab: Lab, name: str) -> str | None:
    """Return the IPv4 address that a workload gets for `name` from the gateway's resolver."""
    found = lab.workload.probe("dns", server="127.0.0.1", name=name).fields.get("address")
    return None if found is None else str(found)


def started(lab: Lab, **changes: str) -> Gateway:
    """Return a gateway with two short lists."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.write(HOSTS, "127.0.0.1 localhost\n0.0.0.0 ads.example ok.exempt.example\n")
    gateway.write(ZONE, "@ SOA a. b. 1 2 3 4 5\nbad.example CNAME .\n*.bad.example CNAME .\n")
    wanted = {"DNS_SERVER": "on", "DNS_BLOCK_FILES": f"{HOSTS},{ZONE}"}
    return gateway.start(gateway.env(**(wanted | changes)))


def blocks(gateway: Gateway) -> int:
    """Return how many names health says are blocked."""
    return int((gateway.status().body.get("resolver") or {}).get("blocks", 0))


def test_listed_names_do_not_exist_and_a_changed_list_is_read_again(lab: Lab) -> None:
    """No question about them leaves. The controls are names that are not listed or exempt."""
    gateway = started(lab, DNS_UNBLOCK_HOSTNAMES="exempt.example")
    gateway.wait_healthy(timeout=20)
    for name in ("one.example", "sub.ads.example", "ok.exempt.example"):
        assert asked(lab, name) == RESOLVED.ipv4
        assert lab.server.queries(name=name), "control"
    for name in ("ads.example", "bad.example", "sub.bad.example"):
        assert asked(lab, name) is None
        assert not lab.server.queries(name=name)
    assert blocks(gateway) == 3
    (event,) = gateway.events(event="lists of blocked names read")
    assert event["names"] == 3
    gateway.write(HOSTS, "0.0.0.0 two.example\n")
    code, text = gateway.execute(sys.executable, "-m", "gateway", "reload")
    assert code == 0, text
    assert "DNS_BLOCK_FILES" in text
    eventually(lambda: asked(lab, "ads.example") == RESOLVED.ipv4, timeout=20, what="its answer")
    assert asked(lab, "two.example") is None
    assert gateway.status().body["state"] == "connected"


def test_a_list_of_garbage_blocks_nothing_and_names_resolve(lab: Lab) -> None:
    """The log says what was left out."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.write(HOSTS, "x" * 100_000 + '\n$INCLUDE /etc/shadow\n0.0.0.0 a"b\n' * 50)
    gateway.start(gateway.env(DNS_SERVER="on", DNS_BLOCK_FILES=HOSTS))
    gateway.wait_healthy(timeout=20)
    assert asked(lab, "one.example") == RESOLVED.ipv4
    (event,) = gateway.events(event="lists of blocked names read")
    assert "lines that block no name" in event["left_out"]
    assert blocks(gateway) == 0


@pytest.mark.quiet
def test_the_largest_list_fits_into_the_memory_and_outlives_the_tunnel(lab: Lab) -> None:
    """Health does not wait for it; the limit is in docs/limits.md."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    names = (f"0.0.0.0 {os.urandom(5).hex()}.ads{it % 999}.example.com" for it in range(MOST_NAMES))
    gateway.write(HOSTS, "\n".join(names) + "\n0.0.0.0 late.example\n")
    gateway.start(gateway.env(DNS_SERVER="on", DNS_BLOCK_FILES=HOSTS))
    eventually(lambda: blocks(gateway) == MOST_NAMES, timeout=60, what="the list")
    eventually(lambda: asked(lab, "one.example") == RESOLVED.ipv4, timeout=60, what="an answer")
    gateway.wait_healthy(timeout=20)
    assert asked(lab, "late.example") == RESOLVED.ipv4, "one too many"
    status = Path(f"/proc/{child_of(gateway)}/status").read_text("ascii")
    used = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    assert used < MOST_MEMORY, status
    first = child_of(gateway)
    lab.operator.run("ip", "link", "delete", "wg0")
    gateway.wait_for_state("connected")
    eventually(lambda: asked(lab, "two.example") == RESOLVED.ipv4, timeout=60, what="an answer")
    assert child_of(gateway) == first
