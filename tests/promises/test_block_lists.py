"""Lists of blocked names that the gateway fetches: through the tunnel only, and never needed.

The lab plays the host: a resolver that has its name, and a server with a certificate.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model import Errand
from gateway.policy.blocked import MOST_NAMES
from gateway.policy.limits import LimitCode
from gateway.providers.kept import BLOCK_PLACES, blocked_name
from tests.lab.frames import Frame
from tests.lab.gateway import Gateway
from tests.lab.internet import LAN_HOST
from tests.lab.lists import PROVIDER, RESOLVER, ListHost
from tests.lab.process import eventually
from tests.lab.tls import Authority, authority
from tests.lab.topology import Lab
from tests.promises.test_blocked_names import MOST_MEMORY, asked
from tests.promises.test_hold import anchor, held
from tests.promises.test_metrics import page
from tests.promises.test_own_resolver import child_of
from tests.promises.test_resolver_load import counted
from tests.promises.test_resolver_load import flooded as flooded_by

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

HOST = "lists.example"
URL = f"https://{HOST}/hosts"
KEPT = f"{BLOCK_PLACES[0]}/{blocked_name(Errand('', HOST, '/hosts'))}"
LIST = b"# ads\n0.0.0.0 ads.example\n0.0.0.0 tracker.example\n"
RATE, SECONDS = 10, 45
"""Questions a second, so few that those which wait fit into the socket, and for how long."""
OTHER = b"0.0.0.0 tracker.example\n0.0.0.0 late.example\n0.0.0.0 more.example\n"


@pytest.fixture(scope="module")
def certificate(trusted: Authority) -> Path:
    """Return the host's certificate from it."""
    return trusted.issue(HOST)


def started(
    lab: Lab, trusted: Authority, gateway: Gateway | None = None, **changes: str
) -> Gateway:
    """Return a gateway that is to fetch the list, and has a volume at /config."""
    gateway = gateway or lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.write("/config/volume", "")
    wanted = {
        "DNS_SERVER": "on",
        "DNS_ADDRESS": RESOLVER,
        "DNS_BLOCK_URLS": URL,
        "SSL_CERT_FILE": str(trusted.certificate),
    }
    gateway.start(gateway.env(**(wanted | changes)))
    gateway.wait_healthy(timeout=20)
    return gateway


def known(gateway: Gateway) -> dict[str, object]:
    """Return what health says of the list."""
    (listed,) = gateway.status().body["resolver"]["lists"]
    return dict(listed)


def problem(gateway: Gateway) -> str:
    """Return why the list could not be fetched, once that is known."""
    found = lambda: str(known(gateway)["problem"])  # noqa: E731 - it is asked several times
    return eventually(found, timeout=30, what="the reason")


def limits(gateway: Gateway) -> list[str]:
    """Return the texts of the limit."""
    found = gateway.status().body["limits"]
    return [it["text"] for it in found if it["code"] == LimitCode.NOT_FETCHED]


def outside(lab: Lab, *addresses: str) -> list[Frame]:
    """Return the frames to these addresses that were seen outside the tunnel."""
    return [it for up in lab.uplinks for it in up.capture.frames() if it.destination in addresses]


@pytest.mark.both_firewalls
def test_a_list_is_fetched_through_the_tunnel_and_used_at_once_after_a_restart(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """It is not started again for that. Without its host, the copy is used.

    Controls: names resolve that are not in the list, and before the gateway locks, what is sent
    to the host and to its resolver is seen outside.
    """
    host = ListHost(lab, certificate, LIST)
    before = lab.gateway(resolv_conf=f"nameserver {RESOLVER}\n")
    before.workload().probe("resolve", name="before.example")
    lab.workload.probe("tcp", host=PROVIDER, port=443)
    assert outside(lab, RESOLVER)
    assert outside(lab, PROVIDER), "control"
    since = time.monotonic()
    gateway = started(lab, trusted)
    assert asked(lab, "free.example") == PROVIDER
    eventually(lambda: asked(lab, "ads.example") is None, timeout=20, what="the list")
    assert asked(lab, "free.example") == PROVIDER
    assert [(it["client"], it["target"]) for it in host.requests] == [
        (lab.server.exit.ipv4, "/hosts")
    ]
    eventually(lambda: known(gateway)["names"] == 2, timeout=10, what="the number of its names")
    assert gateway.status().body["resolver"]["starts"] == 1, "it has not been started again"
    assert gateway.events(event="list of blocked names fetched", url=URL)
    code, text = gateway.execute(sys.executable, "-m", "gateway", "status")
    assert code == 0, text
    assert f"blocks {URL}: 2 names, " in text
    assert f'portcullis_resolver_list_names{{url="{URL}"}} 2.0' in page(gateway)
    gateway.stop()
    host.close()
    gateway.start(gateway.environment)
    first = eventually(lambda: gateway.status().body.get("resolver"), timeout=20, what="it")
    assert first["blocks"] in {0, 2}
    eventually(lambda: asked(lab, "free.example"), timeout=20, what="an answer")
    assert asked(lab, "ads.example") is None, "blocked with the first answer"
    assert limits(gateway) == []
    assert [it for it in outside(lab, RESOLVER, PROVIDER) if it.at > since] == []
    assert lab.leaks(since + 1) == []


REFUSED = {
    "refused": "HTTP 503",
    "absent": "HTTP 404",
    "downgraded": "HTTP 301 Moved Permanently, which leads to http://lists.example/plain",
    "redirected": "HTTP 302 Found, which leads to https://elsewhere.example/",
    "bomb": "the answer is encoded (gzip)",
    "gigabyte": "larger than 32 MiB",
    "endless": "larger than 32 MiB",
    "truncated": "the answer ends early",
    "garbage": "no line of it blocks a name",
    "stalled": "silent for 15 s",
}
"""How a host may answer, and the reason that is reported."""


@pytest.mark.timeout(400)
def test_no_answer_of_a_host_is_used_that_is_not_a_whole_list(
    lab: Lab, trusted: Authority, certificate: Path, tmp_path: Path
) -> None:
    """The copy stays in use, health stays green and has the reason; then a good list is taken.

    A certificate from another authority, or for another name, gets no request.
    """
    host = ListHost(lab, certificate, LIST)
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.write("/config/volume", "")
    gateway.execute("mkdir", BLOCK_PLACES[0])
    gateway.write(KEPT, "ads.example CNAME .\n")
    host.close()
    started(lab, trusted, gateway, DNS_UPDATE_PERIOD="1s")

    def said(why: str) -> None:
        eventually(lambda: why in problem(gateway), timeout=60, what=why)
        health = gateway.status()
        assert health.code == 200
        assert any(URL in it and why in it and "s ago" in it for it in limits(gateway))
        assert asked(lab, "ads.example") is None
        assert asked(lab, "free.example") == PROVIDER, "control"

    said("Connection refused")
    other = authority(tmp_path, "other").issue(HOST)
    for wrong in (other, trusted.issue("other.example")):
        host.serve("well", wrong)
        said("certificate: ")
        assert host.requests == []
        host.close()
    for manner, why in REFUSED.items():
        host.serve(manner)
        eventually(lambda: len(host.requests) > 1, timeout=60, what=f"two requests: {manner}")
        said(why)
        host.close()
    assert gateway.status().body["resolver"]["blocks"] == 1
    host.offer(OTHER)
    host.serve("well")
    eventually(lambda: not limits(gateway), timeout=30, what="a list that is used")
    eventually(lambda: asked(lab, "late.example") is None, timeout=10, what="the new list")
    assert asked(lab, "ads.example") == PROVIDER, "it is not in the list any more"
    assert gateway.status().body["resolver"]["starts"] == 1
    assert gateway.status().body["reconnects"] == {}


def test_a_transfer_ends_with_the_tunnel_and_does_not_continue_outside(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """Nothing of it leaves, and the gateway connects again. Control: the host has the request."""
    host = ListHost(lab, certificate, LIST, manner="stalled")
    gateway = started(lab, trusted)
    eventually(lambda: host.requests, timeout=20, what="the request in the tunnel")
    lab.server.cut()
    lab.operator.run("ip", "link", "del", "wg0", check=False)
    gateway.wait_unhealthy()
    host.close()  # the kernel would acknowledge what it sends at the end
    time.sleep(3)
    assert outside(lab, RESOLVER, PROVIDER) == []
    lab.server.restore()
    host.serve("well")
    gateway.wait_healthy(timeout=30)
    eventually(lambda: asked(lab, "ads.example") is None, timeout=60, what="the list")
    assert asked(lab, "free.example") == PROVIDER
    assert outside(lab, RESOLVER, PROVIDER) == []


def test_a_name_that_leads_to_a_listed_subnet_is_not_followed_there(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """Not one packet of ours goes to the port there. Control: a workload reaches that host."""
    host = ListHost(lab, certificate, LIST)
    host.named(LAN_HOST.ipv4)
    hole = {
        "FIREWALL_OUTBOUND_SUBNETS": f"{LAN_HOST.ipv4}/32",
        "DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES": "example",
    }
    gateway = started(lab, trusted, **hole)
    assert "connect" in problem(gateway)
    assert "so nothing of it is blocked" in limits(gateway)[0]
    assert gateway.status().code == 200
    assert [it for it in outside(lab, LAN_HOST.ipv4) if it.destination_port == 443] == []
    assert lab.workload.probe("tcp", host=LAN_HOST.ipv4).result == "connected"
    assert outside(lab, LAN_HOST.ipv4), "control"


def test_a_list_does_not_keep_its_own_host_from_being_found(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """Neither does DNS_HIJACK, which redirects the questions of others."""
    host = ListHost(lab, certificate, b"0.0.0.0 lists.example ads.example\n")
    gateway = started(lab, trusted, DNS_UPDATE_PERIOD="1s", DNS_HIJACK="on")
    eventually(lambda: len(host.requests) > 2, timeout=30, what="another request")
    assert asked(lab, "ads.example") is None
    assert asked(lab, HOST) == PROVIDER
    assert limits(gateway) == []


def test_with_an_anchor_it_is_the_same(lab: Lab, trusted: Authority, certificate: Path) -> None:
    """The gateway comes and goes; the list stays with its volume."""
    host = ListHost(lab, certificate, LIST)
    held(anchor(lab))
    gateway = lab.gateway(pid_namespace=True)
    started(lab, trusted, gateway)
    eventually(lambda: asked(lab, "ads.example") is None, timeout=20, what="the list")
    assert asked(lab, "free.example") == PROVIDER
    since = time.monotonic()
    assert gateway.stop() == 0
    host.close()
    gateway.start(gateway.environment).wait_healthy(timeout=20)
    eventually(lambda: asked(lab, "free.example"), timeout=20, what="an answer")
    assert asked(lab, "ads.example") is None
    assert outside(lab, RESOLVER, PROVIDER) == []
    assert lab.leaks(since) == []


@pytest.mark.quiet
@pytest.mark.timeout(400)
def test_a_large_list_is_replaced_without_losing_a_question(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """By another one: all are answered, some late, and its memory stays below the limit.

    Health asks the resolver itself, and stays green. A list that is the same as before is not read
    again. Control: a resolver that is killed does not answer all questions.
    """
    ListHost(lab, certificate, b"\n".join((*random_names(), b"last.example")))
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.write("/config/volume", "")
    gateway.execute("mkdir", BLOCK_PLACES[0])
    gateway.write(KEPT, "".join(f"{it.decode()} CNAME .\n" for it in random_names()))
    changes = {
        "DNS_ADDRESS": "",
        "DNS_UPSTREAM_RESOLVERS": f"{RESOLVER}@53#x.example",
        "DNS_UPSTREAM_RESOLVER_TYPE": "plain",
    }
    started(lab, trusted, gateway, DNS_UPDATE_PERIOD="10s", **changes)
    assert asked(lab, "last.example") == PROVIDER, "it is not in the copy"
    before = child_of(gateway)
    flood = flooded_by(lab, RATE, SECONDS)
    looks = []
    for _ in range(SECONDS):
        time.sleep(1)
        looks.append(gateway.status().code)
    sent, answered = counted(flood)
    assert sent > RATE * SECONDS * 0.9
    assert sent - answered <= RATE, f"{sent - answered} of {sent} questions were lost"
    assert set(looks) == {200}
    assert asked(lab, "last.example") is None
    assert gateway.status().body["resolver"]["blocks"] == MOST_NAMES
    events = gateway.events(event="list of blocked names fetched")
    assert [it["changed"] for it in events[:2]] == [True, False]
    assert child_of(gateway) == before
    status = Path(f"/proc/{before}/status").read_text("ascii")
    used = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    assert used < MOST_MEMORY, status
    flood = flooded_by(lab, RATE, 10)
    time.sleep(3)
    os.kill(before, signal.SIGKILL)
    sent, answered = counted(flood)
    assert sent - answered > RATE, "control"


def random_names() -> Iterator[bytes]:
    """Yield as many names as are allowed but one."""
    return (
        b"%b.ads%d.example.com" % (os.urandom(8).hex().encode(), it % 999)
        for it in range(MOST_NAMES - 1)
    )
