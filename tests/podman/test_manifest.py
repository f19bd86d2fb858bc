"""The Kubernetes manifest of docs/layouts.md, played by Podman, which does not know sidecars.

Its probes are run by hand. No test starts a Kubernetes cluster.
"""

from collections.abc import Iterator

import pytest

from tests.docker.site import EXIT, HOST
from tests.docker.test_anchor import Uses
from tests.podman.manifest import PROBES, Manifest
from tests.podman.pod import PodSite

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module")
def played(site: PodSite) -> Iterator[Manifest]:
    """Yield the pod of the manifest, up and running."""
    made = Manifest(site)
    try:
        made.up()
        yield made
    finally:
        made.down()


def test_the_manifest_makes_a_pod_behind_the_tunnel(played: Manifest) -> None:
    """Its workload leaves by the server's exit, and asks the resolver of the manifest."""
    assert played.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    (resolver,) = played.pod["spec"]["dnsConfig"]["nameservers"]
    said = played.workload.exec("cat", "/etc/resolv.conf")
    assert [line for line in said.splitlines() if line.startswith("nameserver")] == [
        f"nameserver {resolver}"
    ]
    assert played.workload.probe("dns", server=resolver, name="any.example").result == "answered"


def test_its_probes_succeed(played: Manifest) -> None:
    """The commands that a kubelet would run in the gateway's container."""
    for probe in PROBES:
        played.gateway.exec(*played.sidecar[probe]["exec"]["command"])


def test_the_gateway_takes_over_in_place(played: Manifest) -> None:
    """As in the pod of `podman pod create`."""
    uses = Uses(played)
    played.site.engine.docker("restart", played.gateway.name)
    played.gateway.wait_for_health("healthy")
    uses.continue_untouched()
    uses.close()
