"""The vault of docs/layouts.md on Podman, which needs no pod: the workloads have no link outside.

The containers of a pod share one network namespace, so a pod cannot have a vault.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.docker.site import EXIT, HOST
from tests.docker.test_vault import VaultUses
from tests.lab.process import promised
from tests.podman.pod import Pod, PodSite, Vault
from tests.podman.test_pods import MOST, killed, recreated, restarted

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module")
def vault(site: PodSite) -> Iterator[Vault]:
    """Yield the vault, the gateway and the workload, up and running."""
    vault = Vault(site)
    try:
        vault.up()
        yield vault
    finally:
        vault.down()


def test_workloads_leave_by_the_server_and_have_no_link_outside(vault: Vault) -> None:
    """The gateway has made `wg0` and moved it to them."""
    assert vault.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    links = vault.workload.exec("ls", "/sys/class/net").split()
    assert sorted(links) == ["hole0", "lo", "wg0"]


@pytest.mark.parametrize("what", [restarted, killed, recreated])
def test_workloads_do_not_notice_that_the_gateway_is_another_one(
    vault: Vault, what: Callable[[Pod], None], report: list[str]
) -> None:
    """Their containers and connections stay, and nothing leaves around the tunnel."""
    uses = VaultUses(vault)
    what(vault)
    vault.gateway.wait_for_health("healthy")
    uses.continue_untouched()
    gap = uses.longest_gap()
    report.append(f"vault: {what.__name__}, {gap:.1f} s without data")
    assert gap < promised(MOST)
    uses.close()
