"""The pod of docs/layouts.md on Podman: gateways come and go, workloads stay.

The infra container of a pod has its network namespace, as an anchor does. A download through the
tunnel, a client on the LAN and a flood run all the time.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.docker.site import HOST
from tests.docker.test_anchor import Uses
from tests.lab.process import promised
from tests.podman.pod import Pod

pytestmark = pytest.mark.podman

MOST = 14.0
"""Seconds without data: TCP sends again 6.2 s and 12.6 s after the last data (RFC 6298)."""


@pytest.fixture
def uses(pod: Pod) -> Iterator[Uses]:
    """Yield the traffic; afterwards nothing may have leaked."""
    found = Uses(pod)
    yield found
    found.close()


def restarted(pod: Pod) -> None:
    """`podman restart`."""
    pod.site.engine.docker("restart", pod.gateway.name)


def killed(pod: Pod) -> None:
    """`podman kill`, then `podman start`."""
    pod.site.engine.docker("kill", pod.gateway.name)
    pod.site.engine.docker("start", pod.gateway.name)


def recreated(pod: Pod) -> None:
    """Another container with other variables, in the same pod."""
    pod.recreate_gateway(LOG_LEVEL="debug")


@pytest.mark.parametrize("what", [restarted, killed, recreated])
def test_workloads_do_not_notice_that_the_gateway_is_another_one(
    pod: Pod, uses: Uses, what: Callable[[Pod], None], report: list[str]
) -> None:
    """Their containers and connections stay, and nothing leaves around the tunnel."""
    former = pod.gateway.inspect("{{.Id}} {{.State.StartedAt}}")
    what(pod)
    assert pod.gateway.inspect("{{.Id}} {{.State.StartedAt}}") != former, "control"
    pod.gateway.wait_for_health("healthy")
    uses.continue_untouched()
    gap = uses.longest_gap()
    report.append(f"pod: {what.__name__}, {gap:.1f} s without data")
    assert gap < promised(MOST)


def test_a_missing_gateway_leaves_the_workloads_shut_in(pod: Pod, uses: Uses) -> None:
    """Removed for ten seconds: what begins is refused at once, and connections wait."""
    pod.site.engine.docker("rm", "-f", pod.gateway.name)
    assert pod.workload.probe("tcp", host=HOST.ipv4).failed_fast
    time.sleep(10)
    assert time.monotonic() - uses.moments()[-1] > 8, "control: there is an interruption"
    pod.recreate_gateway()
    pod.gateway.wait_for_health("healthy")
    uses.continue_untouched()


def test_workloads_have_the_resolver_of_the_gateway(pod: Pod) -> None:
    """The containers of a pod share the file that the gateway writes."""
    for box in (pod.gateway, pod.workload):
        assert box.read("/etc/resolv.conf").split("nameserver ")[1:] == ["127.0.0.1\n"]
    assert pod.workload.probe("resolve", name="any.example").result == "answered"
