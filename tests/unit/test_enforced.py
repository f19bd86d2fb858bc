"""What is in force after an attempt that failed, and when the egress guard counts as refused."""

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.looks import LOOKS, Looks
from gateway.daemon.securing import close_guard
from gateway.errors import FirewallError, NetworkError
from gateway.model import Config
from gateway.policy.evidence import Pulse
from gateway.policy.facts import Facts
from gateway.policy.firewall import closed
from gateway.policy.guard import guard_for
from gateway.policy.routing import LOCKED
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.policy.states import Connected, Locked, Turn
from gateway.policy.tables import Routing
from tests.fakes.firewall import FakeFirewall
from tests.fakes.links import FakeGuard, FakeLinks
from tests.scenarios import GUARD_MARK, IPV4_ONLY, TWO_UPLINKS

BOTH = replace(TWO_UPLINKS, guard_mark=GUARD_MARK)
CONFIG = Config((IPV4_ONLY,))
CONNECTED = Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse())
REFUSED = FirewallError("loading a table", "No such file or directory")
SHORTAGE = FirewallError("loading a table", "nft: could not be started", errno.EAGAIN)


class Machine:
    """A connected gateway: its firewall, guard, links and enforcement."""

    def __init__(self, firewall: FakeFirewall | None = None) -> None:
        self.links = FakeLinks(BOTH)
        self.firewall = firewall or FakeFirewall()
        self.guard = FakeGuard(self.links)
        self.enforcement = Enforcement(CONFIG, self.firewall, self.guard, self.links)
        self.enforcement.look_around()
        self.enforcement.enter(CONNECTED)
        assert not self.is_closed, "control: something is open"

    @property
    def is_closed(self) -> bool:
        """Whether the closed rules and the guard that goes with them are in force."""
        return self.firewall.verify(closed()) == () and self.guard.held == guard_for(closed(), BOTH)


class Short(FakeFirewall):
    """A firewall that cannot be changed for now while `is_short`."""

    is_short = False

    def apply(self, ruleset: Ruleset) -> None:
        """Fail in a shortage; nothing has changed then."""
        if self.is_short:
            raise SHORTAGE
        super().apply(ruleset)


@pytest.mark.promise("P1")
def test_after_the_guard_was_refused_at_closing_nothing_puts_the_open_rules_back() -> None:
    """The former state's rules are what `put_back_drift` would otherwise restore."""
    machine = Machine()
    machine.guard.is_broken = True
    with pytest.raises(FirewallError):
        machine.enforcement.close()
    assert machine.links.is_shut
    machine.guard.is_broken = False
    machine.enforcement.put_back_drift()
    assert machine.is_closed
    assert machine.enforcement.drift == 0, "the gateway's own failure is not a change by others"
    machine.firewall.rules[Family.IPV4, Chain.OUTPUT] = ()
    machine.enforcement.put_back_drift()
    assert machine.is_closed
    assert machine.enforcement.drift == 1, "control: a change is one"


@pytest.mark.promise("P1")
@pytest.mark.parametrize("act", ["put_back_drift", "look_around"])
def test_after_a_shortage_at_closing_the_next_attempt_closes(act: str) -> None:
    """Whichever attempt that is: the rules of the state that was left are not wanted any more."""
    firewall = Short()
    machine = Machine(firewall)
    firewall.is_short = True
    with pytest.raises(FirewallError):
        machine.enforcement.close()
    assert not machine.is_closed, "control: what was in force stays in force"
    assert not machine.links.is_shut
    firewall.is_short = False
    getattr(machine.enforcement, act)()
    assert machine.is_closed
    assert machine.enforcement.drift == 0


@pytest.mark.promise("P1")
def test_closing_twice_after_a_refusal_closes_and_guards_every_link() -> None:
    """The second attempt knows the links, so no link comes up without a guard."""
    machine = Machine()
    machine.guard.is_broken = True
    with pytest.raises(FirewallError):
        machine.enforcement.close()
    machine.guard.is_broken = False
    machine.enforcement.close()
    assert not machine.links.is_shut
    assert machine.is_closed


@pytest.mark.promise("P14")
def test_closing_before_the_first_look_guards_the_links_that_are_there() -> None:
    """The lock has guarded them; an empty guard in its place would let packet sockets send."""
    links = FakeLinks(BOTH)
    guard = FakeGuard(links)
    Enforcement(CONFIG, FakeFirewall(), guard, links).close()
    assert guard.held == guard_for(closed(), BOTH)


def test_after_closing_a_look_puts_no_other_state_into_force() -> None:
    """Not its rules and not its routes: only `enter` leads out of the closed state."""

    class Routed(FakeLinks):
        routing = LOCKED

        def apply_routing(self, wanted: Routing) -> None:
            self.routing = wanted

    links = Routed(BOTH)
    firewall = FakeFirewall()
    enforcement = Enforcement(CONFIG, firewall, None, links)
    enforcement.look_around()
    enforcement.enter(CONNECTED)
    assert links.routing != LOCKED, "control"
    enforcement.close()
    links.now = replace(BOTH, uplinks=BOTH.uplinks[:1])
    enforcement.look_around()
    assert firewall.verify(closed()) == ()
    assert links.routing == LOCKED


def look_again(machine: Machine) -> None:
    """Look at a namespace that has changed, so that the guard is put into force again."""
    machine.links.now = replace(BOTH, uplinks=BOTH.uplinks[:1])
    machine.enforcement.look_around()


def revert(machine: Machine) -> None:
    """Find the guard changed by another program."""
    machine.guard.drifted = ("egress-eth0: a rule is missing",)
    machine.enforcement.put_back_drift()
    assert machine.enforcement.drifted == ("egress-eth0: a rule is missing",)


WAYS: list[Callable[[Machine], None]] = [
    look_again,
    revert,
    lambda machine: machine.enforcement.close(),
    lambda machine: close_guard(machine.guard, machine.links.facts),
]


@pytest.mark.parametrize("act", WAYS, ids=["look", "revert", "close", "start"])
def test_a_guard_that_is_refused_while_a_link_is_renamed_and_back_is_tried_again(
    act: Callable[[Machine], None],
) -> None:
    """The namespace looks the same, and nft does not say that a device was missing."""
    machine = Machine()
    machine.guard.fails = [REFUSED] * LOOKS
    act(machine)
    assert machine.guard.fails == []
    assert not machine.links.is_shut


@pytest.mark.parametrize("act", WAYS, ids=["look", "revert", "close", "start"])
def test_a_guard_that_is_refused_after_all_looks_is_refused(act: Callable[[Machine], None]) -> None:
    """The number of attempts is bounded, because the loop that decides waits for them."""
    machine = Machine()
    machine.guard.is_broken = True
    before = machine.guard.attempts
    with pytest.raises(FirewallError, match="No such file"):
        act(machine)
    assert machine.guard.attempts == before + LOOKS + 1


@pytest.mark.parametrize("act", WAYS, ids=["look", "revert", "close", "start"])
def test_a_shortage_of_the_guard_is_not_tried_again_at_once(act: Callable[[Machine], None]) -> None:
    """Five more programs are the last thing that a machine without processes needs."""
    machine = Machine()
    machine.guard.is_short = True
    before = machine.guard.attempts
    with pytest.raises(FirewallError, match="could not be started"):
        act(machine)
    assert machine.guard.attempts == before + 1


def test_a_guard_that_differs_while_a_link_is_renamed_is_not_drift() -> None:
    """A second comparison finds no difference; a change by another program still differs then."""
    machine = Machine()
    machine.guard.phantoms = 1
    machine.enforcement.put_back_drift()
    assert (machine.enforcement.drift, machine.enforcement.drifted) == (0, ())
    revert(machine)


@pytest.mark.promise("P14")
@pytest.mark.parametrize("error", [REFUSED, SHORTAGE], ids=["refused", "shortage"])
def test_links_go_down_when_a_changed_guard_cannot_be_put_back(error: FirewallError) -> None:
    """What is in force was read, and may let any frame out, as changed rules may."""
    machine = Machine()
    machine.guard.fails = [error] * (LOOKS + 1)
    with pytest.raises(FirewallError):
        revert(machine)
    assert machine.links.is_shut


@pytest.mark.promise("P14")
@pytest.mark.parametrize(
    "error", [SHORTAGE, MemoryError(), OSError(errno.ENFILE, "Too many open files")], ids=repr
)
def test_a_link_without_a_guard_is_down_after_any_kind_of_shortage(error: BaseException) -> None:
    """Python's own errors mean the same as the kernel's; the link comes up with its guard."""
    machine = Machine()
    machine.links.now = replace(BOTH, uplinks=BOTH.uplinks[:1])
    machine.enforcement.look_around()
    machine.links.now = BOTH
    machine.guard.fails = [error, error]
    with pytest.raises(type(error)):
        machine.enforcement.look_around()
    assert machine.links.shut_only == {BOTH.uplinks[1].index}
    machine.guard.fails = []
    machine.enforcement.enter(CONNECTED)
    assert not machine.links.is_shut
    assert machine.guard.held is not None
    assert [guarded.device for guarded in machine.guard.held.devices] == ["eth0", "eth1"]


def test_a_link_that_comes_up_while_a_shortage_lasts_is_set_down_too() -> None:
    """The shortage began with another change, so every attempt fails before the look."""
    machine = Machine()
    first = replace(BOTH, uplinks=BOTH.uplinks[:1])
    machine.links.now = first
    machine.enforcement.look_around()
    machine.guard.is_short = True
    machine.links.now = replace(first, down=("eth1",))
    with pytest.raises(FirewallError):
        machine.enforcement.look_around()
    assert machine.links.shut_only is None, "control: nothing is up without a guard"
    machine.links.now = BOTH
    with pytest.raises(FirewallError):
        machine.enforcement.enter(CONNECTED)
    assert machine.links.shut_only == {BOTH.uplinks[1].index}
    machine.guard.is_short = False
    machine.enforcement.enter(CONNECTED)
    assert not machine.links.is_shut


class Renamed(FakeLinks):
    """A namespace in which a link is missing for the next `times` changes of the routes."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.times = 0
        self.routing = LOCKED

    def apply_routing(self, wanted: Routing) -> None:
        """Answer as the kernel does about a link that is not there; half of it may be done."""
        self.routing = wanted
        if self.times:
            self.times -= 1
            raise NetworkError("add a route: No such device", "eth0", errno.ENODEV)


def test_the_way_to_the_server_survives_a_link_that_is_renamed_and_back() -> None:
    """As everything else that is about links does; what never succeeds is an error."""
    links = Renamed(BOTH)
    enforcement = Enforcement(CONFIG, FakeFirewall(), None, links)
    enforcement.look_around()
    links.times = LOOKS
    enforcement.route_to_server(IPV4_ONLY)
    assert (links.times, links.routing != LOCKED) == (0, True)
    enforcement.enter(CONNECTED)
    links.times = LOOKS + 1
    with pytest.raises(NetworkError):
        enforcement.route_to_server(IPV4_ONLY)


def test_half_a_way_to_the_server_is_taken_away_by_the_next_state() -> None:
    """Routes of a failed attempt are not what the locked state has."""
    links = Renamed(BOTH)
    enforcement = Enforcement(CONFIG, FakeFirewall(), None, links)
    enforcement.look_around()
    links.times = LOOKS + 1
    with pytest.raises(NetworkError):
        enforcement.route_to_server(IPV4_ONLY)
    assert links.routing != LOCKED, "control: some of it is there"
    enforcement.close()
    enforcement.look_around()
    assert links.routing == LOCKED


class Unsettled(FakeLinks):
    """A namespace whose eth1 is gone for the next `times` preparations, and which can be changed.

    `prepared` has every uplink that was given its settings; `drifted` what another program changed.
    With `is_hidden` set, nothing about it can be read.
    """

    def __init__(self) -> None:
        super().__init__(BOTH)
        self.times = 0
        self.prepared: list[str] = []
        self.drifted: tuple[str, ...] = ()
        self.is_hidden = False

    def facts(self) -> Facts:
        """Return what is there, unless it is hidden."""
        if self.is_hidden:
            raise NetworkError("read links", "", errno.EPERM)
        return self.now

    def prepare(self, uplink: str) -> None:
        """Note `uplink`, if it is there."""
        if uplink == "eth1" and self.times:
            self.times -= 1
            raise NetworkError("there is no such link", uplink, errno.ENODEV)
        self.prepared.append(uplink)
        self.drifted = ()

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Return what was changed on eth0."""
        return self.drifted if uplink == "eth0" else ()


def unsettled() -> tuple[Unsettled, FakeFirewall, FakeGuard, Enforcement]:
    """Return a connected gateway whose links a test can change in more ways."""
    links, firewall = Unsettled(), FakeFirewall()
    guard = FakeGuard(links)
    enforcement = Enforcement(CONFIG, firewall, guard, links)
    enforcement.look_around()
    enforcement.enter(CONNECTED)
    return links, firewall, guard, enforcement


def test_the_guard_is_put_again_after_a_link_was_missing_for_a_moment() -> None:
    """The kernel removes the chain of a link that goes, so a guard that was put before is unknown.

    The namespace looks as it did, so nothing else would put it there again.
    """
    links, _firewall, guard, enforcement = unsettled()
    links.now = replace(BOTH, uplinks=(BOTH.uplinks[0], replace(BOTH.uplinks[1], index=9)))
    links.times = 1
    before = guard.attempts
    enforcement.look_around()
    assert guard.attempts == before + 2


def test_rules_that_were_refused_are_not_taken_for_the_former_ones() -> None:
    """The kernel may hold either, so the former ones are put there again and read back."""
    _links, firewall, _guard, enforcement = unsettled()
    firewall.fails = True
    with pytest.raises(FirewallError):
        enforcement.close()
    rules = len(firewall.applied)
    enforcement.enter(CONNECTED)
    assert firewall.applied[rules] == closed(), "the links are down: closed comes first"
    firewall.fails = True
    with pytest.raises(FirewallError):
        enforcement.enter(Locked())
    rules = len(firewall.applied)
    enforcement.enter(CONNECTED)
    assert len(firewall.applied) == rules + 1


@pytest.mark.promise("P1")
def test_rules_close_before_anything_has_to_be_read() -> None:
    """A namespace that cannot be read is closed by rules, and then by setting its links down."""
    links, firewall = Unsettled(), FakeFirewall()
    links.is_hidden = True
    with pytest.raises(NetworkError):
        Enforcement(CONFIG, firewall, FakeGuard(links), links).close()
    assert firewall.applied == [closed()]
    assert links.is_shut


@pytest.mark.promise("P1")
def test_links_that_are_down_for_want_of_rules_wait_for_the_closed_ones() -> None:
    """Also where some of them were down already, waiting for a guard."""
    links, firewall, guard, enforcement = unsettled()
    links.now = replace(BOTH, uplinks=BOTH.uplinks[:1])
    enforcement.look_around()
    links.now, guard.is_short = BOTH, True
    with pytest.raises(FirewallError):
        enforcement.look_around()
    firewall.fails = True
    with pytest.raises(FirewallError):
        enforcement.close()
    guard.is_short = False
    enforcement.look_around()
    assert links.is_shut
    enforcement.close()
    assert not links.is_shut


def test_only_links_that_stayed_are_left_after_all_looks() -> None:
    """Each one that came or went meanwhile is not an uplink until the next look."""
    eth0, eth1 = BOTH.uplinks
    looks = Looks(BOTH)
    for index in range(20, 20 + LOOKS - 1):
        found = replace(BOTH, uplinks=(eth0, replace(eth1, index=index)))
        assert not looks.are_over
        assert looks.add(found) == found
    assert looks.add(BOTH).uplinks == (eth0,)
    assert looks.are_over


def test_settings_that_another_program_changed_are_set_again() -> None:
    """On a link that had them already."""
    links, _firewall, _guard, enforcement = unsettled()
    links.prepared.clear()
    links.drifted = ("eth0: arp_ignore is 0, not 1",)
    enforcement.put_back_drift()
    assert "eth0" in links.prepared
    assert enforcement.drifted == ("eth0: arp_ignore is 0, not 1",)


def test_a_link_that_comes_back_is_given_its_settings_again() -> None:
    """The kernel may give its index again."""
    links, _firewall, _guard, enforcement = unsettled()
    links.now = replace(BOTH, uplinks=BOTH.uplinks[:1])
    enforcement.look_around()
    links.prepared.clear()
    links.now = BOTH
    enforcement.look_around()
    assert links.prepared == ["eth1"]


def test_packets_that_the_former_rules_refused_are_counted() -> None:
    """They are read before the rules change, because the new rules count from zero."""
    _links, firewall, _guard, enforcement = unsettled()
    firewall.counts = {("ipv4", "out"): 3}
    enforcement.enter(Locked())
    assert ("ipv4", "out", 3) in enforcement.refused


def test_a_difference_is_drift_when_the_links_cannot_be_read() -> None:
    """What is not known explains nothing: the guard is put back."""
    links, _firewall, guard, enforcement = unsettled()
    guard.drifted = ("egress-eth0: a rule is missing",)
    links.is_hidden = True
    enforcement.put_back_drift()
    assert guard.drifted == ()
    assert enforcement.drift == 1


@pytest.mark.promise("P17")
def test_changed_rules_are_counted_although_the_guard_cannot_be_read_afterwards() -> None:
    """They were reverted, and the next comparison finds nothing to report."""
    _links, firewall, guard, enforcement = unsettled()
    firewall.rules[Family.IPV4, Chain.OUTPUT] = ()
    guard.drifted = ("egress-eth0: a rule is missing",)
    guard.is_short = True
    with pytest.raises(FirewallError):
        enforcement.put_back_drift()
    assert enforcement.drift == 1
    assert enforcement.drifted == ("IPV4 OUTPUT: other rules",)
