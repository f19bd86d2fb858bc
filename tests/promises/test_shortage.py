"""P15: a shortage of processes or descriptors ends nothing, and opens nothing.

What is in force stays in force, health is red meanwhile, and the log claims nothing that is false.
"""

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.capture import Capture
from tests.lab.gateway import Gateway
from tests.lab.namespace import connect
from tests.lab.process import eventually
from tests.lab.shortage import ProcessLimit, no_descriptors
from tests.lab.topology import Lab
from tests.promises.witness import HOST4, HOST6, not_by_the_exit, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

UNCHECKED = "the kernel could not be asked or changed for now"


@pytest.fixture
def processes(lab: Lab) -> Iterator[ProcessLimit]:
    """Return a control group that a test can let run out of processes."""
    with ProcessLimit(f"{lab.prefix}-pids") as limit:
        yield limit


def have_it_run_nft(lab: Lab) -> None:
    """Change a table of another program: the gateway then reads its own again."""
    lab.operator.run("nft", "add table inet another")


def wait_until_red(lab: Lab, gateway: Gateway) -> None:
    """Have the gateway run nft, and wait for the reason of a shortage."""
    have_it_run_nft(lab)
    eventually(
        lambda: gateway.status().body.get("reason") == UNCHECKED,
        timeout=10,
        what="red for a shortage",
    )


def links_up(lab: Lab) -> set[str]:
    """Return the links of the gateway's namespace that are up."""
    lines = lab.operator.run("ip", "-o", "link").splitlines()
    return {
        line.split()[1].rstrip(":").split("@")[0] for line in lines if re.search("[<,]UP", line)
    }


def start_without_forks(gateway: Gateway, processes: ProcessLimit) -> None:
    """Start the gateway as a process that may have no children; it waits for the limit first."""
    wait = 'until [ -e /run/secrets/go ]; do :; done; exec "$@"'
    gateway.argv = ["sh", "-c", wait, "sh", *gateway.argv]
    gateway.start()
    processes.add(gateway.pid)
    processes.exhaust(tasks=1)
    gateway.write("/run/secrets/go", "")


def leaving(lab: Lab) -> list[str]:
    """Send by the open ways of a process that binds to the link; return what leaves."""
    since = time.monotonic()
    for host in (HOST4, HOST6):
        lab.workload.probe("udp", host=host, timeout=0.2, device=lab.uplink.name)
    lab.capture.quiet_for(0.1)
    return [str(frame) for frame in lab.leaks(since)]


def test_a_connected_gateway_that_cannot_fork_stays_and_is_green_again(
    lab: Lab, processes: ProcessLimit
) -> None:
    """For eight seconds: the same process, the same tunnel, no link down, nothing outside it."""
    assert leaving(lab), "control: the probe leaves while nothing is closed"
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    process, reconnects = gateway.pid, gateway.status().body["reconnects"]
    processes.add(process)
    processes.exhaust()
    since = time.monotonic()
    wait_until_red(lab, gateway)
    assert processes.refusals, "control: the kernel refused a fork"
    while time.monotonic() < since + 8:
        assert gateway.running, gateway.logs()
        assert gateway.status().body["state"] == "connected"
        time.sleep(0.5)
    assert links_up(lab) == {"lo", "eth0", "wg0"}
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert leaving(lab) == []
    processes.lift()
    assert gateway.wait_healthy().body["reconnects"] == reconnects
    assert gateway.pid == process
    assert lab.leaks(since) == []


def test_a_gateway_without_descriptors_stays_and_ends_closed(lab: Lab) -> None:
    """The reserve is enough for the closed rules; "closed" in the log is true."""
    assert leaving(lab), "control: the probe leaves while nothing is closed"
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_INPUT_PORTS="8080"))
    gateway.wait_healthy()
    with no_descriptors(gateway.pid):
        have_it_run_nft(lab)
        eventually(
            lambda: gateway.events(event="could not check or change the kernel"),
            timeout=10,
            what="a shortage in the log",
        )
        assert gateway.running
        assert links_up(lab) >= {"lo", "eth0"}
        assert leaving(lab) == []
        assert gateway.stop(15) == 0, gateway.logs()
    assert gateway.events(event="stopped; closed")
    rules = lab.operator.run("sh", "-c", "iptables-legacy-save; nft list ruleset")
    assert "P1 nothing else leaves" in rules, "control: these are the rules"
    assert "8080" not in rules
    assert leaving(lab) == []


def test_a_stop_that_cannot_write_the_rules_says_so_and_the_next_start_recovers(
    lab: Lab, processes: ProcessLimit
) -> None:
    """The links are down with what they had in their alias; the next gateway restores it."""
    routes = lab.operator.run("sh", "-c", "ip route show default; ip -6 route show default")
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    processes.add(gateway.pid)
    processes.exhaust()
    wait_until_red(lab, gateway)
    assert gateway.stop(20) == 1
    if not gateway.events(event="stopped; closed"):
        [said] = gateway.events(event="exiting; not closed by rules")
        assert "every link is down" in said["problem"]
    assert links_up(lab) <= {"lo"}
    assert leaving(lab) == []
    processes.lift()
    gateway.start().wait_healthy()
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert leaving(lab) == []
    gateway.stop()
    assert lab.operator.run("sh", "-c", "ip route show default; ip -6 route show default") == routes


def test_a_gateway_that_cannot_fork_at_its_start_waits_with_the_links_down(
    lab: Lab, processes: ProcessLimit
) -> None:
    """Nothing leaves while it waits; it locks, sets the links up and connects when it can."""
    assert leaving(lab), "control: the probe leaves while nothing is closed"
    gateway = lab.gateway()
    start_without_forks(gateway, processes)
    eventually(lambda: links_up(lab) <= {"lo"}, timeout=10, what="the links to be down")
    assert leaving(lab) == []
    time.sleep(2)
    assert gateway.running, gateway.logs()
    assert "cannot lock the namespace yet" in gateway.logs()
    processes.lift()
    gateway.wait_healthy(20)
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert leaving(lab) == []


def test_a_stop_ends_the_waiting_at_the_start(lab: Lab, processes: ProcessLimit) -> None:
    """Docker's ten seconds are enough, and the links stay down."""
    gateway = lab.gateway()
    start_without_forks(gateway, processes)
    eventually(lambda: links_up(lab) <= {"lo"}, timeout=10, what="the links to be down")
    assert gateway.stop(8) == 1
    assert links_up(lab) <= {"lo"}


@pytest.mark.promise("P14")
def test_a_link_that_appears_in_a_shortage_is_down_until_it_has_a_guard(
    lab: Lab, processes: ProcessLimit
) -> None:
    """A packet socket sends by it all the time; the tunnel stays up meanwhile."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    processes.add(gateway.pid)
    processes.exhaust()
    wait_until_red(lab, gateway)
    connect(lab.internet_namespace, "upx", lab.gateway_namespace, "net1")
    lab.internet_namespace.ip("link set upx up")
    capture = Capture("upx", lab.household, enter=lab.internet_namespace.command)
    flood = lab.workload.flood("packet4", device="net1", marker="unforeseen-flood", rate=2000)
    since = time.monotonic()
    lab.gateway_namespace.ip("link set net1 up")
    capture.wait_for(lambda frame: b"unforeseen-flood" in frame.raw, since=since)
    eventually(lambda: "net1" not in links_up(lab), timeout=5, what="the new link to be down")
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    closed_at = time.monotonic()
    processes.lift()
    eventually(lambda: "net1" in links_up(lab), timeout=10, what="the new link to be up")
    gateway.wait_healthy()
    time.sleep(0.5)
    assert capture.containing("unforeseen-flood", closed_at) == []
    flood.stop()
