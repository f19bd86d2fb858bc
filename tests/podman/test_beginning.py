"""What happens before the workloads of a pod on Podman run: the container `close` of the page."""

from collections.abc import Iterator

import pytest

from tests.docker.project import NUMBER
from tests.docker.site import UPLINK, leaks_of
from tests.docker.test_anchor import MARKER
from tests.lab.process import eventually
from tests.podman.pod import POD, Pod, PodSite

pytestmark = pytest.mark.podman


@pytest.fixture
def unstarted(site: PodSite) -> Iterator[Pod]:
    """Yield the pod, made and not started, with a flood among its containers."""
    pod = Pod(site)
    try:
        for words in pod.commands()[:-1]:
            site.engine.docker(*words)
        pod.create_flood(MARKER)
        yield pod
    finally:
        pod.down()


def test_a_pod_is_closed_before_its_workloads_run(unstarted: Pod) -> None:
    """The container `close` runs first, also when the pod is started again; even without a gateway.

    With a gateway, the order in which Podman starts the containers would decide.
    """
    pod = unstarted
    pod.gateway.remove()
    capture = pod.site.capture_network(UPLINK)
    pod.site.control(capture)
    for times, words in enumerate((["start"], ["stop", "start"]), 1):
        for word in words:
            pod.site.engine.docker("pod", word, POD, timeout=90)
        pod.wait_for_flood(times)
    pod.recreate_gateway()
    pod.gateway.wait_for_health("healthy")
    assert capture.containing(MARKER) == []
    assert leaks_of(capture, NUMBER) == []


def test_a_restart_of_the_whole_pod_does_not_close_it_first(unstarted: Pod) -> None:
    """Podman runs no init container then, which docs/layouts.md warns of."""
    unstarted.site.engine.docker("pod", "start", POD)
    closed = unstarted.started_at("close")
    unstarted.site.engine.docker("pod", "restart", POD, timeout=90)
    assert unstarted.started_at("flood") > closed, "control"
    assert unstarted.started_at("close") == closed


def test_containers_that_are_started_without_the_pod_are_not_closed_in(unstarted: Pod) -> None:
    """The same, and the control of the capture: the flood leaves."""
    capture = unstarted.site.capture_network(UPLINK)
    unstarted.site.engine.docker("start", "flood")
    eventually(lambda: capture.containing(MARKER), timeout=10, what="the flood on the bridge")
