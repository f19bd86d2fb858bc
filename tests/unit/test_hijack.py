"""Which questions are redirected to the gateway's own resolver, and when; put in and put back."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path

import pytest

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Closed
from gateway.errors import FirewallError, MissingError
from gateway.firewall.nft.firewall import HIJACK
from gateway.firewall.nft.hijack import HijackTable, render_redirection
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import transaction
from gateway.model import Config, Endpoint, HostPort
from gateway.model.name_server import RESOLVER_USER, NameServer
from gateway.model.proxies import PROXY_USER, SocksProxy
from gateway.policy.hijack import Redirection, redirection_for
from gateway.policy.rules import Accept, CtDirection, Family, Ports, Reject
from gateway.policy.states import Connected, Connecting, Locked
from gateway.policy.upstreams import REDIRECTED
from gateway.policy.wanted import Vault, wanted_in
from tests.fakes.firewall import FakeFirewall
from tests.fakes.links import FakeLinks
from tests.fakes.redirector import FakeRedirector
from tests.nft_golden import is_accepted, reads_as
from tests.scenarios import IPV4_ONLY, ONE_UPLINK, RESOLVING_HOLES, SCENARIOS, connected
from tests.unit.test_nft_firewall import Machine

pytestmark = pytest.mark.promise("P10", "P17")

assert RESOLVING_HOLES.name_server
HIJACKING = replace(RESOLVING_HOLES, name_server=replace(RESOLVING_HOLES.name_server, hijack=True))
WANTED = redirection_for(connected(IPV4_ONLY), HIJACKING)
assert WANTED
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "hijack" / "connected.nft"


def test_it_reads_as_its_golden_file_says() -> None:
    """`GOLDEN=write` writes it again."""
    reads_as(GOLDEN, transaction(HIJACK, render_redirection(WANTED)))


def test_nft_accepts_the_golden_file() -> None:
    """As the kernel's own tool reads it."""
    is_accepted(GOLDEN)


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_is_there_only_on_the_way_to_a_tunnel_and_in_it(name: str) -> None:
    """Before that, the gateway itself may ask another resolver. Never without the variable."""
    state, config, facts = SCENARIOS[name]
    on = replace(config, name_server=NameServer(hijack=True))
    found = wanted_in(state, on, facts).redirection
    assert (found is not None) is isinstance(state, Connecting | Connected)
    for off in (None, NameServer()):
        wanted = wanted_in(state, replace(config, name_server=off), facts)
        assert wanted.redirection is None
    assert wanted_in(state, on, facts, vault=Vault()).redirection == found


def test_what_is_redirected_is_what_workloads_ask_others() -> None:
    """Each part first spares loopback and the resolver's user."""
    spared = {rule.out_interface or rule.user or rule.ct_direction for _, rule in WANTED.spared}
    assert spared == {"lo", RESOLVER_USER, CtDirection.REPLY}
    for rules, port in ((WANTED.redirected, 53), (WANTED.refused, 53), (WANTED.astray, REDIRECTED)):
        assert {(family, it.protocol) for family, it in rules} == {*product(Family, ("tcp", "udp"))}
        assert {it.destination_ports for _, it in rules} == {Ports.one(port)}
    assert {it.destination for _, it in WANTED.redirected} == {None}
    own = [it for _, it in WANTED.refused if it.destination]
    asked = [ip_network("10.2.0.1"), ip_network("192.168.1.53")]
    assert [(it.destination, it.protocol, it.verdict) for it in own] == [
        (address, "tcp", Accept()) for address in asked
    ]
    ours = {it.destination for _, it in WANTED.astray}
    assert ours == {ip_network("127.0.0.1"), ip_network("::1")}


@pytest.mark.promise("P19")
def test_what_a_proxy_asks_others_is_refused_and_not_redirected() -> None:
    """First of all, so that no resolver which ours asks is exempt. Without a proxy, nothing is."""
    proxied = replace(HIJACKING, socks_proxy=SocksProxy(HostPort("", 1080)))
    found = redirection_for(connected(IPV4_ONLY), proxied)
    assert found
    assert (WANTED.left, found.redirected, found.astray) == ((), WANTED.redirected, WANTED.astray)
    added = [it for it in found.refused if it not in WANTED.refused]
    for rules in (found.left, added):
        assert {(family, it.protocol) for family, it in rules} == {*product(Family, ("tcp", "udp"))}
        assert {(it.user, it.destination) for _, it in rules} == {(PROXY_USER, None)}
    for family in Family:
        own = [it for where, it in found.refused if where is family]
        assert [it.user for it in own[:2]] == [PROXY_USER] * 2
        assert all(isinstance(it.verdict, Reject) for it in own[:2])
    chain = render_redirection(found).partition("chain refused")[0]
    assert chain.index(f"skuid {PROXY_USER}") < chain.index("redirect to")


@pytest.mark.parametrize("server", ["203.0.113.7", "2001:db8::7"])
def test_the_encrypted_flow_to_port_53_is_spared(server: str) -> None:
    """Many providers offer that port. Control: with another one there is nothing to spare."""
    address = ip_address(server)
    peer = replace(IPV4_ONLY.peers[0], endpoint=Endpoint(address, 53))
    tunnel = replace(IPV4_ONLY, peers=(peer,))
    found = redirection_for(connected(tunnel), HIJACKING)
    assert found
    ((family, rule),) = set(found.spared) - set(WANTED.spared)
    assert family is Family(address.version)
    assert (str(rule.destination).partition("/")[0], rule.protocol) == (server, "udp")
    assert rule.source_ports == Ports.one(tunnel.listen_port)
    assert rule.mark == tunnel.fwmark, "else a workload of a vault could send as it"


@pytest.mark.parametrize("lacks", ["type nat", "redirect"])
def test_a_kernel_without_redirection_is_named_with_the_remedy(lacks: str) -> None:
    """It is tried without loading anything. Control: one that has all of it."""
    machine = Machine()
    assert HijackTable.find(Nft(machine))
    machine.lacks = (lacks,)
    with pytest.raises(MissingError, match="DNS_HIJACK=on") as caught:
        HijackTable.find(Nft(machine))
    assert "modprobe" in caught.value.remedy
    assert "DNS_HIJACK=off" in caught.value.remedy
    assert machine.tables == {}


class Gateway:
    """A connected gateway with a redirector."""

    def __init__(self, config: Config = HIJACKING) -> None:
        self.redirector: FakeRedirector[Redirection] = FakeRedirector()
        self.enforcement = Enforcement(
            config,
            FakeFirewall(),
            None,
            FakeLinks(ONE_UPLINK),
            closed=Closed(redirector=self.redirector),
        )
        self.redirector.is_there, self.redirector.table = True, WANTED  # of an earlier run
        self.redirector.has_refused = 100
        self.enforcement.look_around()
        self.at_first = self.redirector.table
        self.enforcement.enter(connected(IPV4_ONLY))


def test_what_an_earlier_run_has_left_is_replaced_before_anything_is_asked() -> None:
    """In the first state nothing is redirected, in the one with a tunnel all of it."""
    gateway = Gateway()
    assert gateway.at_first is None
    assert gateway.redirector.table == WANTED
    gateway.enforcement.enter(Locked(since=0.0))
    assert gateway.redirector.table is None


def test_a_table_that_is_gone_is_drift() -> None:
    """It is put back."""
    gateway = Gateway()
    gateway.redirector.is_there = False
    gateway.enforcement.put_back_drift()
    assert gateway.enforcement.drifted == ("the table is not there",)
    assert gateway.redirector.is_there
    assert gateway.redirector.table == WANTED


def test_what_it_refuses_is_counted_whatever_rules_it_had() -> None:
    """Those of an earlier run are not. What cannot be read stays as it was."""
    gateway = Gateway()

    def refused() -> dict[tuple[str, str], int]:
        gateway.enforcement.count_refused()
        return {(family, way): n for family, way, n in gateway.enforcement.refused}

    before = refused()[("ipv4", "out")]
    assert before == 0
    gateway.redirector.has_refused = 2
    assert refused()[("ipv4", "out")] == before + 2
    gateway.redirector.has_refused = 3
    gateway.enforcement.enter(Locked(since=0.0))
    assert gateway.redirector.has_refused == 0
    assert refused()[("ipv4", "out")] == before + 3
    gateway.redirector.is_there = False
    assert refused()[("ipv4", "out")] == before + 3


def test_a_redirection_that_is_refused_is_an_error() -> None:
    """The caller closes the namespace."""
    gateway = Gateway()
    gateway.enforcement.enter(Locked(since=0.0))
    gateway.redirector.fails = True
    with pytest.raises(FirewallError):
        gateway.enforcement.enter(connected(IPV4_ONLY))
