"""What is enforced when the machine changes at an unlucky moment."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.looks import LOOKS
from gateway.errors import FirewallError, KernelError, NetworkError
from gateway.model import Config
from gateway.policy.evidence import Pulse
from gateway.policy.facts import Facts
from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.policy.states import Connected, Connecting, Reason, Turn
from gateway.policy.tables import Routing
from tests.fakes.firewall import FakeFirewall
from tests.fakes.links import FakeGuard, FakeLinks
from tests.scenarios import GUARD_MARK, IPV4_ONLY, TWO_UPLINKS

BOTH = replace(TWO_UPLINKS, guard_mark=GUARD_MARK)


def test_an_uplink_that_went_away_unnoticed_does_not_end_the_gateway() -> None:
    """The guard closes those that are left, and the next look puts everything into step."""
    namespace = FakeLinks(BOTH)
    guard = FakeGuard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()
    assert guard.closed == [("eth0", "eth1")]
    namespace.now = replace(BOTH, uplinks=BOTH.uplinks[:1])
    enforcement.close()
    assert guard.closed[-1] == ("eth0",)
    assert not namespace.is_shut
    enforcement.look_around()
    assert enforcement.facts == namespace.now


def test_links_are_set_down_when_the_guard_cannot_be_closed_at_all() -> None:
    """And the failure is reported."""
    namespace = FakeLinks(BOTH)
    guard = FakeGuard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()
    guard.is_broken = True
    with pytest.raises(FirewallError):
        enforcement.close()
    assert namespace.is_shut


@pytest.mark.parametrize(
    ("stubborn", "reported"),
    [
        ((), []),
        (("eth1",), [("links are still up", ("eth1",))]),
        (None, [("could not set links down", None)]),
    ],
    ids=["all down", "one is up", "no socket"],
)
def test_links_that_are_still_up_are_named(
    stubborn: tuple[str, ...] | None, reported: list[tuple[str, object]]
) -> None:
    """Nothing is left to be done for them, so that the log must say so; the failure stays."""
    namespace = FakeLinks(BOTH)
    namespace.stubborn = stubborn
    firewall = FakeFirewall()
    enforcement = Enforcement(Config((IPV4_ONLY,)), firewall, None, namespace)
    firewall.fails = True
    with capture_logs() as logs, pytest.raises(KernelError, match="refused"):
        enforcement.close()
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["event"], entry.get("links")) for entry in errors] == reported


class Breaking(FakeFirewall):
    """A firewall whose library breaks in an unforeseen way."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def apply(self, ruleset: Ruleset) -> None:
        """Break."""
        del ruleset
        raise self._error


@pytest.mark.parametrize(
    "error", [RuntimeError(), KeyboardInterrupt(), OSError(errno.EINVAL, "Invalid")], ids=repr
)
def test_links_are_set_down_whatever_kind_of_error_keeps_the_rules_out(
    error: BaseException,
) -> None:
    """A foreign error leaves the former rules as well, which may let something pass."""
    namespace = FakeLinks(BOTH)
    enforcement = Enforcement(Config((IPV4_ONLY,)), Breaking(error), None, namespace)
    with pytest.raises(type(error)):
        enforcement.close()
    assert namespace.is_shut


def test_an_error_on_the_way_down_does_not_hide_why() -> None:
    """What kept the rules out is what the caller gets."""
    namespace = FakeLinks(BOTH)
    namespace.breaks = True
    enforcement = Enforcement(Config((IPV4_ONLY,)), Breaking(RuntimeError()), None, namespace)
    with capture_logs() as logs, pytest.raises(RuntimeError):
        enforcement.close()
    assert [entry["event"] for entry in logs] == ["could not set links down"]


SHORTAGES = [
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    FirewallError("loading a table", "nft: could not be started", errno.EAGAIN),
    FirewallError("loading a table", "nft: took longer than 10 s", errno.ETIMEDOUT),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
def test_a_shortage_sets_no_link_down(error: BaseException) -> None:
    """The kernel has refused nothing: the rules that were read back last are in force."""
    namespace = FakeLinks(BOTH)
    enforcement = Enforcement(Config((IPV4_ONLY,)), Breaking(error), None, namespace)
    with pytest.raises(type(error)):
        enforcement.close()
    assert not namespace.is_shut


def test_links_come_up_again_once_the_closed_rules_are_in_force() -> None:
    """And not before: a state is not entered while they are down."""
    namespace = FakeLinks(BOTH)
    firewall = FakeFirewall()
    enforcement = Enforcement(Config((IPV4_ONLY,)), firewall, None, namespace)
    firewall.fails = True
    with pytest.raises(FirewallError):
        enforcement.close()
    firewall.fails = True
    with pytest.raises(FirewallError):
        enforcement.enter(Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse()))
    assert namespace.is_shut
    enforcement.close()
    assert not namespace.is_shut
    assert firewall.applied == [closed()]


def test_what_is_compared_after_closing_is_the_closed_ruleset() -> None:
    """Nothing restores the rules of the former state, whatever else fails on the way."""
    firewall = FakeFirewall()
    enforcement = Enforcement(Config((IPV4_ONLY,)), firewall, None, FakeLinks(BOTH))
    enforcement.look_around()
    enforcement.enter(Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse()))
    assert firewall.verify(closed()), "control: something was open"
    enforcement.close()
    enforcement.put_back_drift()
    assert enforcement.drifted == ()
    firewall.rules[Family.IPV4, Chain.OUTPUT] = ()
    enforcement.put_back_drift()
    assert firewall.applied[-1] == closed()
    assert firewall.verify(closed()) == ()


@pytest.mark.promise("P14")
def test_a_link_that_appears_in_a_shortage_is_down_until_it_has_a_guard() -> None:
    """The others stay up: they have one."""
    namespace = FakeLinks(replace(BOTH, uplinks=BOTH.uplinks[:1]))
    guard = FakeGuard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()
    namespace.now, guard.is_short = BOTH, True
    with pytest.raises(FirewallError):
        enforcement.look_around()
    assert namespace.shut_only == {BOTH.uplinks[1].index}
    guard.is_short = False
    enforcement.look_around()
    assert not namespace.is_shut
    assert guard.closed[-1] == ("eth0", "eth1")


class Counted:
    """A reserve that counts how often it is lent."""

    def __init__(self) -> None:
        self.lent = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Lend it."""
        self.lent += 1
        yield


@pytest.mark.parametrize(("number", "lent"), [(errno.EMFILE, 1), (errno.EAGAIN, 0)])
def test_the_reserve_is_lent_where_descriptors_are_short(number: int, lent: int) -> None:
    """And where something else is, it would not help."""
    reserve, namespace = Counted(), FakeLinks(BOTH)
    breaking = Breaking(FirewallError("loading a table", "nft", number))
    enforcement = Enforcement(Config((IPV4_ONLY,)), breaking, None, namespace, reserve)
    with pytest.raises(FirewallError):
        enforcement.close()
    assert reserve.lent == lent


def test_a_link_that_no_rule_can_name_is_set_down_and_reported() -> None:
    """The others work: nothing leaves through such a link, and it is not an uplink."""
    namespace = FakeLinks(BOTH)
    namespace.unnameable = ("eth+0",)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, namespace)
    with capture_logs() as logs:
        enforcement.look_around()
        enforcement.look_around()
    reported = [(e["log_level"], e["link"]) for e in logs if "unusable name" in e["event"]]
    assert reported == [("error", "'eth+0'")]
    assert enforcement.facts == BOTH


def test_what_the_guard_drops_is_counted_over_its_changes() -> None:
    """Its counts restart with each change, whether ours or by another program."""
    namespace = FakeLinks(BOTH)
    guard = FakeGuard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()

    def refused() -> int:
        enforcement.put_back_drift()
        enforcement.count_refused()
        return {(family, way): n for family, way, n in enforcement.refused}["any", "guard"]

    assert refused() == 0
    guard.dropped = 3
    assert refused() == 3
    guard.dropped = 5
    guard.drifted = ("a rule is missing",)
    assert refused() == 5
    assert guard.dropped == 0, "control: it was put back"
    guard.dropped = 2
    assert refused() == 7
    guard.dropped = 1  # another program has made the table again
    assert refused() == 8


class Flapping(FakeLinks):
    """A namespace whose eth1 is another one, or gone, each time that something is done about it."""

    def __init__(self, times: int) -> None:
        super().__init__(BOTH)
        self.left = times
        self.prepared: list[str] = []

    def flap(self) -> None:
        """Take eth1 away, or bring another one."""
        if self.left:
            self.left -= 1
            eth0 = BOTH.uplinks[0]
            others = len(self.now.uplinks) - 1
            again = () if others else (replace(BOTH.uplinks[1], index=90 - self.left),)
            self.now = replace(BOTH, uplinks=(eth0, *again))

    def prepare(self, uplink: str) -> None:
        """Find eth1 gone while it flaps."""
        if uplink == "eth1" and self.left:
            self.flap()
            raise NetworkError("there is no such link", uplink, errno.ENODEV)
        self.prepared.append(uplink)

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Find another eth1 than the one that was prepared."""
        if uplink == "eth1" and self.left:
            self.flap()
            return ("eth1: arp_ignore is 0, not 1",)
        return ()


@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_link_that_goes_while_it_is_looked_at_is_looked_at_again(times: int) -> None:
    """Until it stays; what is enforced is for the links that are there."""
    namespace = Flapping(times)
    guard = FakeGuard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()
    assert enforcement.facts == namespace.now
    names = tuple(uplink.name for uplink in namespace.now.uplinks)
    assert guard.closed[-1] == names
    assert set(namespace.prepared) == set(names)


class Renamed(FakeLinks):
    """A namespace whose eth1 is gone when it is set up, and there whenever it is looked for."""

    def __init__(self, times: int, number: int) -> None:
        super().__init__(BOTH)
        self.left = times
        self.number = number

    def prepare(self, uplink: str) -> None:
        """Answer `number` as often as it is wanted."""
        if uplink == "eth1" and self.left:
            self.left -= 1
            raise NetworkError("there is no such link", uplink, self.number)


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.ENETDOWN])
def test_a_link_that_is_renamed_and_back_between_two_looks_costs_nothing(number: int) -> None:
    """The namespace looks as it did, and the kernel says that the link is not there."""
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, Renamed(3, number))
    enforcement.look_around()
    assert enforcement.facts == BOTH
    with pytest.raises(NetworkError):
        Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, Renamed(99, number)).look_around()
    with pytest.raises(NetworkError):
        Enforcement(
            Config((IPV4_ONLY,)), FakeFirewall(), None, Renamed(1, errno.EINVAL)
        ).look_around()


def test_a_link_that_never_stays_is_not_an_uplink_and_starves_no_other() -> None:
    """The number of looks is bounded; those that stay are served, and the next look tries again."""
    namespace = Flapping(1000)
    guard = FakeGuard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.close()
    enforcement.look_around()
    assert [uplink.name for uplink in enforcement.facts.uplinks] == ["eth0"]
    assert 1000 - namespace.left <= LOOKS + 1
    assert namespace.prepared == ["eth0"]
    enforcement.put_back_drift()
    assert enforcement.drift == 0
    enforcement.close()
    assert not namespace.is_shut
    namespace.left = 0
    enforcement.look_around()
    assert enforcement.facts == namespace.now, "control: it is taken up once it stays"


def test_settings_of_another_link_of_the_same_name_are_not_drift() -> None:
    """It has not been prepared yet, and no other program has changed anything."""
    namespace = Flapping(0)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, namespace)
    enforcement.close()
    enforcement.look_around()
    namespace.left = 1
    enforcement.put_back_drift()
    assert enforcement.drift == 0, enforcement.drifted


def test_an_error_that_no_change_of_the_namespace_explains_counts() -> None:
    """And what was not done is done when the namespace is looked at next, though it is the same."""

    class Refusing(FakeLinks):
        refuses = True

        def prepare(self, uplink: str) -> None:
            if self.refuses:
                raise NetworkError("set IPv4 settings", uplink, errno.ENODEV)
            prepared.append(uplink)

    prepared: list[str] = []
    namespace = Refusing(BOTH)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, namespace)
    with pytest.raises(NetworkError):
        enforcement.look_around()
    namespace.refuses = False
    enforcement.look_around()
    assert prepared == ["eth0", "eth1"]


class Counting(FakeLinks):
    """A namespace that counts how often it is looked at."""

    looks = 0

    def facts(self) -> Facts:
        """Return what is there now."""
        self.looks += 1
        return self.now


def test_a_state_is_entered_in_the_namespace_as_it_was_found() -> None:
    """Only before the first look, the namespace is looked at for it."""
    state = Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse())
    namespace = Counting(BOTH)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, namespace)
    enforcement.enter(state)
    assert namespace.looks == 1
    assert enforcement.facts == BOTH
    enforcement.close()
    enforcement.enter(state)
    assert namespace.looks == 1


class Remembering(FakeFirewall):
    """A firewall that keeps what it is compared with."""

    def __init__(self) -> None:
        super().__init__()
        self.compared: list[Ruleset] = []

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Compare."""
        self.compared.append(ruleset)
        return super().verify(ruleset)


def test_the_rules_of_a_state_are_made_once() -> None:
    """A sample a second changes the state, and not what its rules depend on."""
    firewall = Remembering()
    state = Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse())
    enforcement = Enforcement(Config((IPV4_ONLY,)), firewall, None, FakeLinks(BOTH))
    enforcement.look_around()
    enforcement.enter(state)
    enforcement.put_back_drift()
    enforcement.enter(replace(state, pulse=Pulse(received=5)))
    enforcement.put_back_drift()
    first, *_, last = firewall.compared
    assert first is last
    enforcement.enter(Connecting(state.turn, IPV4_ONLY, Reason.SILENT, 0.0, 0.0))
    enforcement.put_back_drift()
    assert firewall.compared[-1] != first, "control: another state has other rules"


class Noting(FakeLinks):
    """A namespace that notes what is put into it."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.puts: list[str] = []

    def prepare(self, uplink: str) -> None:
        """Note the uplink."""
        self.puts.append(uplink)

    def apply_routing(self, wanted: Routing) -> None:
        """Note that routes were written."""
        del wanted
        self.puts.append("routes")


def test_routes_are_written_again_when_a_link_has_come_again() -> None:
    """The kernel drops them with the link; settings are the new link's alone."""
    namespace = Noting(BOTH)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), None, namespace)
    enforcement.look_around()
    assert namespace.puts == ["eth0", "eth1", "routes"]
    enforcement.look_around()
    assert namespace.puts == ["eth0", "eth1", "routes"], "nothing has changed"
    first, second = BOTH.uplinks
    namespace.now = replace(BOTH, uplinks=(first, replace(second, index=9)))
    enforcement.look_around()
    assert namespace.puts[3:] == ["eth1", "routes"]


def test_another_namespace_has_other_rules_in_the_same_state() -> None:
    """Such as one more uplink."""
    firewall = FakeFirewall()
    namespace = FakeLinks(replace(BOTH, uplinks=BOTH.uplinks[:1]))
    enforcement = Enforcement(Config((IPV4_ONLY,)), firewall, None, namespace)
    state = Connected(Turn((IPV4_ONLY,)), IPV4_ONLY, 0.0, Pulse())
    enforcement.look_around()
    enforcement.enter(state)
    namespace.now = BOTH
    enforcement.look_around()
    assert firewall.applied[-1] == ruleset_for(state, Config((IPV4_ONLY,)), BOTH)
    assert firewall.applied[-1] != firewall.applied[-2], "control"
