"""What is in force in a vault and around it: both are closed together, the uplinks decide last."""

from dataclasses import replace

import pytest

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Closed, Inside
from gateway.errors import FirewallError, KernelError
from gateway.model import INTERFACE, Config, PortRange, Protocol
from gateway.policy.evidence import Pulse
from gateway.policy.firewall import closed, ruleset_in_vault
from gateway.policy.passage import INSIDE, OUTSIDE, inner_end
from gateway.policy.rules import Chain, Family
from gateway.policy.states import Connected, Locked, Turn
from gateway.policy.wanted import Vault
from tests.fakes.firewall import FakeFirewall
from tests.fakes.links import FakeLinks
from tests.fakes.passage import FakePassage, FakeTranslator
from tests.scenarios import IPV4_ONLY, ONE_UPLINK

CONFIG = Config((IPV4_ONLY,))
LISTED = Config((IPV4_ONLY,), input_ports=(PortRange(Protocol.TCP, 80, 80),))
CONNECTED = Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse())


class Machine:
    """A connected gateway with a vault."""

    def __init__(
        self,
        vault: Vault = Vault(),  # noqa: B008 - it is frozen
        passage: FakePassage | None = None,
        translator: FakeTranslator | None = None,
    ) -> None:
        self.links = FakeLinks(ONE_UPLINK)
        self.outside, self.inside = FakeFirewall(), FakeFirewall()
        links = FakeLinks(replace(ONE_UPLINK, uplinks=()))
        inside = Inside(self.inside, links, vault, passage, translator)
        self.enforcement = Enforcement(
            CONFIG, self.outside, None, self.links, closed=Closed(inside=inside)
        )
        self.enforcement.look_around()
        self.enforcement.enter(CONNECTED)

    @property
    def is_closed(self) -> bool:
        """Whether both namespaces are."""
        return not self.outside.verify(closed()) and not self.inside.verify(closed())


def test_connected_the_vault_has_the_tunnel_and_the_uplinks_the_flow() -> None:
    """And neither has what is the other's."""
    machine = Machine()
    assert machine.inside.verify(ruleset_in_vault(CONNECTED, CONFIG, None)) == ()
    output = machine.outside.rules[Family.IPV4, Chain.OUTPUT]
    assert INTERFACE not in {rule.out_interface for rule in output}
    assert "P3 the encrypted flow" in {rule.why for rule in output}


@pytest.mark.parametrize("how", ["left", "closed"])
def test_both_are_closed_together(how: str) -> None:
    """When the state is left, and when closing is asked for. Control: they were open."""
    machine = Machine()
    assert not machine.is_closed
    if how == "left":
        machine.enforcement.enter(Locked(since=0.0))
    else:
        machine.enforcement.close()
    assert machine.is_closed


def test_a_vault_that_cannot_be_closed_loses_the_uplinks() -> None:
    """The encrypted flow cannot leave then, so nothing can."""
    machine = Machine()
    machine.inside.fails = True
    with pytest.raises(KernelError):
        machine.enforcement.close()
    assert machine.links.is_shut
    machine.enforcement.close()
    assert machine.is_closed
    assert not machine.links.is_shut


def test_a_change_in_the_vault_is_drift() -> None:
    """It is reverted, and what was refused there is counted with the rest."""
    machine = Machine()
    machine.inside.rules[Family.IPV4, Chain.OUTPUT] = ()
    machine.enforcement.put_back_drift()
    assert machine.enforcement.drifted == ("IPV4 OUTPUT: other rules",)
    assert machine.inside.verify(ruleset_in_vault(CONNECTED, CONFIG, None)) == ()
    for firewall, number in ((machine.outside, 2), (machine.inside, 3)):
        firewall.counts["ipv4", "out"] = number
    machine.enforcement.count_refused()
    assert machine.enforcement.refused == (("ipv4", "out", 5),)


def test_rules_that_the_vault_refuses_are_not_in_force_outside_for_long() -> None:
    """The caller learns of it, and closes both."""
    machine = Machine()
    machine.enforcement.enter(Locked(since=0.0))
    machine.inside.fails = True
    with pytest.raises(FirewallError):
        machine.enforcement.enter(CONNECTED)
    machine.enforcement.close()
    assert machine.is_closed


class WithHoles(Machine):
    """A connected gateway with a vault that can have holes; none is listed."""

    def __init__(self) -> None:
        self.passage, self.translator = FakePassage("eth0"), FakeTranslator()
        super().__init__(Vault(inner_end((4, 6))), self.passage, self.translator)

    def list_port(self) -> None:
        """Take another configuration, as a reload does."""
        self.enforcement.config = LISTED
        self.enforcement.enter(CONNECTED)


def test_what_leads_to_a_vault_is_there_while_a_hole_is_listed() -> None:
    """And nothing of it before and afterwards, but that the vault's address does not leave."""
    machine = WithHoles()
    assert not machine.passage.ends
    closed_table = machine.translator.held
    assert closed_table
    assert "dnat" not in closed_table
    machine.list_port()
    assert set(machine.passage.ends) == {INSIDE, OUTSIDE}
    assert machine.passage.forwarding == {"eth0"}
    assert "dnat" in (machine.translator.held or "")
    machine.enforcement.config = CONFIG
    machine.enforcement.enter(CONNECTED)
    assert not machine.passage.ends
    assert machine.translator.held == closed_table


def test_what_leads_to_a_vault_is_put_back() -> None:
    """The pair, its forwarding, and the translation; each is drift."""
    machine = WithHoles()
    machine.list_port()
    held = machine.translator.held
    machine.passage.ends.pop(OUTSIDE)
    machine.passage.forwarding.clear()
    machine.translator.held = None
    machine.enforcement.put_back_drift()
    assert len(machine.enforcement.drifted) == 3
    assert set(machine.passage.ends) == {INSIDE, OUTSIDE}
    assert machine.passage.forwarding == {"eth0"}
    assert machine.translator.held == held


def test_a_translation_that_is_refused_is_an_error() -> None:
    """The caller closes both namespaces. Control: the rules have been open."""
    machine = WithHoles()
    machine.translator.fails = True
    with pytest.raises(FirewallError):
        machine.list_port()
    assert not machine.is_closed
    machine.enforcement.close()
    assert machine.is_closed


def test_the_pair_is_as_small_as_the_uplink() -> None:
    """It follows the uplink's largest packet."""
    machine = WithHoles()
    machine.list_port()
    (uplink,) = ONE_UPLINK.uplinks
    machine.links.now = replace(ONE_UPLINK, uplinks=(replace(uplink, mtu=1400),))
    machine.enforcement.look_around()
    assert machine.passage.ends[INSIDE].mtu == 1400
