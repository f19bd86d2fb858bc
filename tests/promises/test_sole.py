"""One gateway for one namespace: a second one ends, and the first one puts its rules back."""

import sys

import pytest

from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET
from tests.lab.process import eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.both_firewalls]

SQUAT = """
import socket, sys, time
holder = socket.socket(socket.AF_UNIX)
holder.bind("\\0portcullis")
holder.listen()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def running(lab: Lab) -> Gateway:
    """Return a healthy gateway."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    return gateway


@pytest.mark.promise("P17")
def test_a_second_gateway_ends_and_the_first_has_its_tunnel_back(
    lab: Lab, running: Gateway
) -> None:
    """The second one's lock is a change by another program; the address outside stays the VPN's."""
    code, output = running.execute(sys.executable, "-m", "gateway")
    assert code == 1
    assert f"process {running.pid} is the gateway" in output
    seen = eventually(
        lambda: lab.workload.probe("tcp", host=INTERNET[0].ipv4).seen,
        timeout=10,
        what="the tunnel",
    )
    assert seen == lab.server.exit.ipv4
    eventually(lambda: running.status().body["drift"], timeout=5, what="the change, in the status")


OWN_PROCESSES = ("unshare", "--pid", "--fork", "--kill-child", "--map-root-user")


@pytest.mark.parametrize(
    ("by", "shared"),
    [(OWN_PROCESSES, False), ((), True), (("unshare", "--map-root-user"), True)],
    ids=["own processes", "shared processes", "shared processes, own users"],
)
def test_a_workload_cannot_keep_the_gateway_out(
    lab: Lab, by: tuple[str, ...], *, shared: bool
) -> None:
    """Who takes the name from another process namespace, or may not change ours, is passed over."""
    foreign = lab.workload.command([*by, sys.executable, "-c", SQUAT])
    squatter = lab.household.start(foreign, "squatter")
    squatter.wait_for("ready")
    gateway = lab.gateway(pid_namespace=not shared).start()
    gateway.wait_healthy()
