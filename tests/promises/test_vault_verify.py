"""`gateway verify` with a vault: run where the gateway runs, it tries both namespaces."""

import signal
from collections.abc import Iterator

import pytest

from gateway.commands.verify.report import RAW_IN_VAULT
from gateway.policy.passage import INSIDE
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.test_vault_gateway import Site
from tests.promises.test_vault_holes import HOLES
from tests.promises.test_verify import VERIFY, trials

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1", "P15", "P17")]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return a vault whose gateway is connected, with holes."""
    with Lab() as lab:
        yield Site(lab).start(**HOLES)


def test_it_reads_back_and_tries_both_namespaces(site: Site) -> None:
    """All is as promised, and nothing leaves. What it does not try is a line too.

    Control: the traffic into the tunnel is seen outside, encrypted.
    """
    capture = site.lab.capture
    before = len(capture.frames())
    code, tried = trials(site.gateway)
    assert code == 0, tried
    assert len(capture.frames()) > before
    assert capture.containing("portcullis-") == []
    server = f"{site.lab.server.endpoint.ipv4}:{site.lab.server.port}"
    assert {
        "rules of the vault, read back",
        "routes and policy rules of the vault, read back",
        "link to the vault, read back",
        "translation of addresses, read back",
        "traffic into the tunnel",
        "IPv4 bound to eth0, UDP",
        "IPv6 by a packet socket on eth0",
        f"in the vault: IPv4 bound to {INSIDE}, UDP",
        f"in the vault: IPv6 bound to {INSIDE}, TCP",
        "in the vault: IPv4 with the mark of the encrypted flow",
        f"in the vault: to the server {server}, bound to {INSIDE}",
        RAW_IN_VAULT,
    } <= tried.keys()
    assert "not tried" in tried[RAW_IN_VAULT]["happened"]


def test_a_cut_tunnel_comes_back(site: Site) -> None:
    """Its link is in the vault."""
    code, tried = trials(site.gateway, "--cut")
    assert code == 0, tried
    assert tried["noticed"]["ok"]
    assert tried["back again"]["ok"]


def test_ways_out_of_a_vault_are_found(site: Site) -> None:
    """Another program opens both namespaces. Control: the packets are seen outside."""
    lab, gateway = site.lab, site.gateway
    gateway.signal(signal.SIGSTOP)
    try:
        lab.vault_namespace.run("nft", "delete", "table", "inet", "portcullis")
        for table in (("netdev", "portcullis_guard"), ("inet", "portcullis")):
            lab.operator.run("nft", "delete", "table", *table, check=False)
        for program in ("iptables-legacy", "ip6tables-legacy"):
            lab.operator.run(program, "-P", "FORWARD", "ACCEPT")
            lab.operator.run(program, "-F", "FORWARD")
        for family in ("-4", "-6"):  # else the routes keep it in
            lab.operator.run("ip", family, "rule", "add", "priority", "10", "table", "main")
        code, tried = trials(gateway)
    finally:
        gateway.signal(signal.SIGCONT)
    assert code == 1
    assert lab.capture.containing("portcullis-"), "control"
    assert not tried["rules and routes, read back"]["ok"]
    for version in (4, 6):
        way = f"in the vault: IPv{version} with the mark of answers by {INSIDE}"
        assert not tried[way]["ok"]
    eventually(lambda: gateway.status().code == 200, timeout=20, what="everything put back")


def test_it_is_run_where_the_gateway_runs(site: Site) -> None:
    """The vault has no configuration, and an address echo would not be asked by a workload."""
    code, said = site.vault.execute(*VERIFY)
    assert (code, "where the gateway runs" in said) == (1, True)
    code, said = site.gateway.execute(*VERIFY, "--echo", "http://198.51.100.10/")
    assert (code, "ask it in one of them" in said) == (2, True)
