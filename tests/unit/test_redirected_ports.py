"""Which forwarded ports are redirected, put in and put back; and that nothing else is opened."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.commands.verify.answer import answer_from
from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Closed
from gateway.errors import FirewallError, MissingError
from gateway.firewall.nft.firewall import FORWARDED
from gateway.firewall.nft.port_table import PortTable, render_ports
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import transaction
from gateway.model import Config, PortRange, Protocol
from gateway.model.lease import Lease
from gateway.policy.redirected import PortRedirection, port_redirection_for
from gateway.policy.rules import CtDirection, Drop, Family, Ports
from gateway.policy.states import Locked
from gateway.policy.wanted import Vault, wanted_in
from tests.fakes.firewall import FakeFirewall
from tests.fakes.links import FakeLinks
from tests.fakes.redirector import FakeRedirector
from tests.nft_golden import is_accepted, reads_as
from tests.scenarios import DUAL, IPV4_ONLY, ONE_UPLINK, SCENARIOS, connected
from tests.unit.test_nft_firewall import Machine

pytestmark = pytest.mark.promise("P9", "P17")

MOVED = Lease(40123, 51413, until=60.0, arriving=40123)
STAYS = Lease(40124, 40124, until=60.0)
CONFIG = Config((IPV4_ONLY,))
STATE = replace(connected(IPV4_ONLY), leases=(MOVED, STAYS))
WANTED = port_redirection_for(STATE, CONFIG)
assert WANTED
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ports" / "connected.nft"


def test_it_reads_as_its_golden_file_says() -> None:
    """`GOLDEN=write` writes it again."""
    reads_as(GOLDEN, transaction(FORWARDED, render_ports(WANTED)))


def test_nft_accepts_the_golden_file() -> None:
    """As the kernel's own tool reads it."""
    is_accepted(GOLDEN)


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_redirected_without_a_lease_for_another_port(name: str) -> None:
    """Nor in a state without a tunnel. In a vault it is the same."""
    state, config, facts = SCENARIOS[name]
    assert wanted_in(state, config, facts).ports is None
    assert wanted_in(STATE, CONFIG, ONE_UPLINK).ports == WANTED
    assert wanted_in(STATE, CONFIG, ONE_UPLINK, vault=Vault()).ports == WANTED


def test_a_port_is_redirected_at_the_tunnels_address_for_its_protocols() -> None:
    """And what comes to the other one directly is dropped, but not answers to what began here."""
    assert WANTED
    address = ip_network(IPV4_ONLY.addresses[0].ip)
    assert [(it.protocol, it.destination, to) for _, it, to in WANTED.redirected] == [
        ("tcp", address, 51413),
        ("udp", address, 51413),
    ]
    assert {it.destination_ports for _, it, _ in WANTED.redirected} == {Ports.one(40123)}
    for family, rule in WANTED.direct:
        assert (family, rule.verdict) == (Family.IPV4, Drop())
        assert rule.destination_ports == Ports.one(51413)
        assert rule.ct_direction is CtDirection.ORIGINAL
    assert {rule.in_interface for _, rule in WANTED.direct} == {"wg0"}


def test_a_port_that_is_open_by_itself_stays_so() -> None:
    """It is listed, or forwarded as it is: for the protocol that is."""
    listed = replace(CONFIG, vpn_input_ports=(PortRange(Protocol.TCP, 51000, 52000),))
    found = port_redirection_for(STATE, listed)
    assert found
    assert [it.protocol for _, it in found.direct] == ["udp"]
    both = replace(STATE, leases=(MOVED, Lease(51413, 51413, until=60.0)))
    found = port_redirection_for(both, CONFIG)
    assert found
    assert found.direct == ()


def test_a_port_that_is_redirected_itself_is_not_dropped_before() -> None:
    """One lease may go to the port at which another one arrives."""
    other = Lease(51413, 40999, until=60.0, arriving=51413)
    found = port_redirection_for(replace(STATE, leases=(MOVED, other)), CONFIG)
    assert found
    assert {it.destination_ports for _, it in found.direct} == {Ports.one(40999)}


def test_only_the_family_of_a_lease_is_redirected() -> None:
    """A tunnel may have both."""
    state = replace(connected(DUAL), leases=(replace(MOVED, version=6),))
    found = port_redirection_for(state, CONFIG)
    assert found
    assert {family for family, _, _ in found.redirected} == {Family.IPV6}


@pytest.mark.parametrize("lacks", ["type nat", "redirect"])
def test_a_kernel_without_redirection_is_named_with_the_remedy(lacks: str) -> None:
    """It is tried without loading anything. Control: one that has all of it."""
    machine = Machine()
    assert PortTable.find(Nft(machine))
    machine.lacks = (lacks,)
    with pytest.raises(MissingError, match="LISTENING_PORTS") as caught:
        PortTable.find(Nft(machine))
    assert "modprobe" in caught.value.remedy
    assert machine.tables == {}


def redirector() -> FakeRedirector[PortRedirection]:
    """Return one with what an earlier run has left."""
    left: FakeRedirector[PortRedirection] = FakeRedirector("in")
    left.is_there, left.table = True, WANTED
    return left


def test_it_follows_the_state_and_is_put_back() -> None:
    """What an earlier run has left is replaced first; what it drops is counted."""
    ports = redirector()
    enforcement = Enforcement(
        CONFIG,
        FakeFirewall(),
        None,
        FakeLinks(ONE_UPLINK),
        closed=Closed(port_redirector=ports),
    )
    enforcement.look_around()
    assert ports.table is None
    enforcement.enter(STATE)
    assert ports.table == WANTED
    ports.has_refused = 3
    enforcement.count_refused()
    assert ("ipv4", "in", 3) in enforcement.refused
    ports.table = None
    enforcement.put_back_drift()
    assert enforcement.drifted
    assert ports.table == WANTED
    enforcement.enter(Locked(since=0.0))
    assert ports.table is None


def test_without_it_the_port_is_closed_by_the_rules_all_the_same() -> None:
    """They come first: a redirection that cannot be changed keeps nothing open."""
    ports, firewall = redirector(), FakeFirewall()
    enforcement = Enforcement(
        CONFIG, firewall, None, FakeLinks(ONE_UPLINK), closed=Closed(port_redirector=ports)
    )
    enforcement.enter(STATE)
    assert "51413" in str(firewall.rules)
    ports.fails = True
    with pytest.raises(FirewallError):
        enforcement.enter(connected(IPV4_ONLY))
    assert "51413" not in str(firewall.rules)


def test_verify_reads_forwarded_ports_from_the_answer() -> None:
    """What is not a port there counts as none: the rules are then not as they should be."""
    well = {"port": 40123, "listening": 51413, "arriving": 40123, "version": 4}
    well |= {"protocols": ["tcp", "udp", "sctp"], "seconds": 3}
    (lease,) = answer_from({"forwarded_ports": [well]}).leases
    assert replace(lease, until=60.0) == MOVED
    for wrong in ({"port": 0}, {"version": 5}, {"arriving": "x"}, {"protocols": "tcp"}):
        assert answer_from({"forwarded_ports": [well | wrong]}).leases == ()
    assert len(answer_from({"forwarded_ports": [well] * 100}).leases) == 16
    assert answer_from({"forwarded_ports": 7}).leases == ()
