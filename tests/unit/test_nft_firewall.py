"""The nftables firewall and the egress guard on a kernel in memory.

`tests/promises/test_firewall_contract.py` is the same on the kernel.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall.marks import Marks
from gateway.firewall.nft import firewall as module
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.guard import FUTURE_UPLINKS, Guard
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.translation import TranslationTable
from gateway.policy.facts import Facts
from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.guard import guard_for
from gateway.policy.rules import Accept, Chain, Rule, Ruleset, SetMark
from tests.scenarios import ETH0, FLOW_MARK, GUARD_MARK, SCENARIOS
from tests.unit.test_held_table import LOADS, Kernel
from tests.vocabulary import EVERY_WORD

TABLE, GUARD_TABLE = "inet portcullis", "netdev portcullis_guard"
OPEN = ruleset_for(*SCENARIOS["connected-guarded"])


class Legacy:
    """The legacy tables: `lines` are in the way, `emptied` is how often they were emptied."""

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()
        self.emptied = 0

    def Leftovers(self, _netns: object) -> "Legacy":  # noqa: N802 - the name of a class
        """Return what finds them."""
        return self

    def find(self) -> tuple[str, ...]:
        """Return what is in the way."""
        return self.lines

    def empty(self, _netns: object) -> None:
        """Let everything pass."""
        self.emptied += 1
        self.lines = ()


class Machine(Kernel):
    """A kernel that may lack nftables, or what a trial with these words asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.lacks: tuple[str, ...] = ()

    def __call__(self, argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        """Run nft."""
        if argv[1:] == ("-c", "-f", "-"):
            self.calls.append((*argv[1:], stdin or ""))
            if any(word in (stdin or "") for word in self.lacks):
                raise ProcessError("nft", "exit code 1", "Error: Could not process rule")
            return ""
        return super().__call__(argv, stdin=stdin, timeout=timeout)


class Asked(Nft):
    """The program, for a kernel that has nftables or not."""

    def __init__(self, machine: Machine, *, has: bool = True) -> None:
        super().__init__(machine)
        self._has = has

    def is_in_kernel(self) -> bool:
        """Return whether it has."""
        return self._has


@pytest.fixture
def machine() -> Machine:
    """Return a kernel without tables."""
    return Machine()


@pytest.fixture
def legacy(monkeypatch: pytest.MonkeyPatch) -> Legacy:
    """Return legacy tables that pass everything."""
    made = Legacy()
    monkeypatch.setattr(module, "legacy", made)
    monkeypatch.setattr(module, "wait_for_packets_in_flight", lambda: None)
    return made


@pytest.mark.usefixtures("legacy")
def test_every_word_is_put_in_and_read_back(machine: Machine) -> None:
    """In one table; other tables stay."""
    machine.tables["ip docker"] = {}
    firewall = NftablesFirewall(Nft(machine))
    firewall.apply(EVERY_WORD)
    assert firewall.verify(EVERY_WORD) == ()
    assert set(machine.tables) == {TABLE, "ip docker"}
    assert firewall.verify(closed()) != (), "control"
    assert (firewall.name, firewall.limits) == ("nftables", ())


def puts(machine: Machine) -> list[str]:
    """Return the bodies that were loaded."""
    return [call[-1] for call in machine.calls if call[:3] == LOADS]


def test_marks_change_only_while_no_rule_depends_on_them(
    machine: Machine, legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two transactions, and packets in flight in between; one where no mark changes."""
    del legacy
    waits: list[int] = []
    monkeypatch.setattr(
        module, "wait_for_packets_in_flight", lambda: waits.append(len(puts(machine)))
    )
    marking = Rule(why="mark", verdict=SetMark(7), out_interface="eth0")
    by_mark = Rule(why="by mark", verdict=Accept(), mark=7)
    ruleset = Ruleset(ipv4={Chain.OUTPUT_MARK: (marking,), Chain.OUTPUT: (by_mark,)})
    firewall = NftablesFirewall(Nft(machine))
    firewall.apply(ruleset)
    first, second = puts(machine)
    assert "by mark" not in first
    assert "by mark" in second
    assert "meta mark set 0x7" in first
    assert waits == [1]
    firewall.apply(ruleset)
    firewall.apply(Ruleset(ipv4={Chain.OUTPUT_MARK: (marking,)}))
    assert waits == [1], "the marks are the same"
    firewall.apply(Ruleset(ipv4={Chain.OUTPUT: (by_mark,)}))
    assert waits == [1, 5]
    another = NftablesFirewall(Nft(machine))
    another.apply(ruleset)
    assert len(waits) == 3, "what a former process has left is not known"


def test_rules_that_were_refused_leave_the_marks_unknown(machine: Machine, legacy: Legacy) -> None:
    """The next transaction takes no chance."""
    del legacy
    marking = Rule(why="mark", verdict=SetMark(7), out_interface="eth0")
    by_mark = Rule(why="by mark", verdict=Accept(), mark=7)
    ruleset = Ruleset(ipv4={Chain.OUTPUT_MARK: (marking,), Chain.OUTPUT: (by_mark,)})
    firewall = NftablesFirewall(Nft(machine))
    firewall.apply(ruleset)
    machine.refuses = ["flush table", "delete table"]
    with pytest.raises(FirewallError, match="loading"):
        firewall.apply(ruleset)
    number = len(puts(machine))
    firewall.apply(ruleset)
    assert len(puts(machine)) == number + 2


def test_legacy_tables_count_once_they_have_passed_everything(
    machine: Machine, legacy: Legacy
) -> None:
    """Before that they hold the lock of this start; afterwards what is in them is drift."""
    firewall = NftablesFirewall(Nft(machine))
    legacy.lines = ("-A INPUT -j DROP",)
    firewall.apply(closed())
    assert firewall.verify(closed()) == ()
    firewall.apply(closed())
    assert legacy.emptied == 0
    legacy.lines = ()
    assert firewall.verify(closed()) == ()
    legacy.lines = ("-A INPUT -j DROP",)
    assert firewall.verify(closed()) == ("-A INPUT -j DROP",)
    firewall.apply(closed())
    assert legacy.emptied == 1
    assert firewall.verify(closed()) == ()
    firewall.apply(closed())
    assert legacy.emptied == 1


@pytest.mark.usefixtures("legacy")
def test_both_marks_are_found_in_the_kernels_rules(machine: Machine) -> None:
    """None before there are any."""
    firewall = NftablesFirewall(Nft(machine))
    firewall.apply(closed())
    assert firewall.marks() == Marks(None, None)
    firewall.apply(OPEN)
    assert firewall.marks() == Marks(FLOW_MARK, GUARD_MARK)


@pytest.mark.usefixtures("legacy")
def test_refused_packets_have_a_family_and_a_direction(machine: Machine) -> None:
    """With zero for what was never refused."""
    firewall = NftablesFirewall(Nft(machine))
    firewall.apply(closed())
    for chain, number in (("input", 2), ("forward", 3), ("output", 4)):
        lines = machine.tables[TABLE][f"chain {chain}"]
        first = next(i for i, line in enumerate(lines) if "ipv4" in line and "counter" in line)
        lines[first] = lines[first].replace("counter", f"counter packets {number} bytes 60")
    assert firewall.refused() == {
        ("ipv4", "in"): 2,
        ("ipv4", "forward"): 3,
        ("ipv4", "out"): 4,
        ("ipv6", "in"): 0,
        ("ipv6", "forward"): 0,
        ("ipv6", "out"): 0,
    }


def test_a_kernel_that_has_everything_has_the_firewall(machine: Machine) -> None:
    """The trial is checked and not loaded."""
    assert NftablesFirewall.find(Asked(machine)).name == "nftables"
    (trial,) = machine.calls
    assert trial[:3] == ("-c", "-f", "-")
    assert "table inet portcullis_trial {" in trial[-1]
    assert machine.tables == {}
    for word in (
        "counter reject with tcp reset",
        "counter reject with icmp admin-prohibited",
        "counter reject with icmpv6 admin-prohibited",
        "meta mark 0x1",
        "ct mark 0x1",
        "ct state established",
        "ct direction reply",
        "ct mark set 0x1",
        "ip hdrlength != 5",
        "ip6 nexthdr != 58",
    ):
        assert word in trial[-1]


@pytest.mark.parametrize(
    ("has", "lacks", "said"),
    [
        (False, (), "the kernel has no nftables"),
        (True, ("reject",), "the kernel's nftables lacks a part that the rules need"),
    ],
)
def test_a_kernel_that_lacks_something_has_a_remedy(
    machine: Machine, lacks: tuple[str, ...], said: str, *, has: bool
) -> None:
    """The modules to load, or the other firewall."""
    machine.lacks = lacks
    with pytest.raises(MissingError) as caught:
        NftablesFirewall.find(Asked(machine, has=has))
    assert caught.value.missing == said
    assert "FIREWALL_BACKEND=iptables" in caught.value.remedy


@pytest.mark.parametrize(
    ("installed", "has", "left"),
    [(True, True, []), (False, True, [TABLE]), (True, False, [TABLE])],
)
def test_the_table_of_an_earlier_run_is_removed_where_that_is_possible(
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    left: list[str],
    *,
    installed: bool,
    has: bool,
) -> None:
    """Without the program nothing can be done; without nftables there is none."""

    def find_program(name: str) -> str:
        if not installed:
            raise MissingError(f"the program {name}", "install it")
        return f"/usr/sbin/{name}"

    def made(netns: object) -> Asked:
        assert netns is not None
        return Asked(machine, has=has)

    monkeypatch.setattr(module, "process", SimpleNamespace(find_program=find_program))
    monkeypatch.setattr(module, "Nft", made)
    machine.tables[TABLE] = {}
    module.remove_leftover()
    assert list(machine.tables) == left


FEATURES: dict[str, tuple[tuple[str, ...], Callable[[Guard], bool]]] = {
    "everything": ((), lambda it: it.in_advance and it.routed),
    "not in advance": (("portcullis-none",), lambda it: not it.in_advance and it.routed),
    "not routed": (("rtclassid",), lambda it: it.in_advance and not it.routed),
    "neither": (
        ("portcullis-none", "rtclassid"),
        lambda it: not it.in_advance and not it.routed,
    ),
}


@pytest.mark.parametrize("what", FEATURES)
def test_the_guard_uses_what_the_kernel_has(machine: Machine, what: str) -> None:
    """It is tried without loading anything."""
    machine.lacks, is_right = FEATURES[what]
    assert is_right(Guard.find(Asked(machine)))
    assert machine.tables == {}
    assert all(call[:3] == ("-c", "-f", "-") for call in machine.calls)
    assert all("table netdev portcullis_guard_trial {" in call[-1] for call in machine.calls)


@pytest.mark.parametrize(("has", "lacks"), [(False, ()), (True, ("hook egress",))])
def test_a_kernel_without_the_egress_hook_has_no_guard(
    machine: Machine, lacks: tuple[str, ...], *, has: bool
) -> None:
    """Nor one without nftables."""
    machine.lacks = lacks
    with pytest.raises(MissingError, match="no egress hook") as caught:
        Guard.find(Asked(machine, has=has))
    assert "cap_drop: [NET_RAW]" in caught.value.remedy


@pytest.mark.parametrize("lacks", ["type nat", "masquerade", "dnat"])
def test_a_kernel_without_nat_has_no_translation(machine: Machine, lacks: str) -> None:
    """It is tried without loading anything. Control: one that has all of it."""
    assert TranslationTable.find(Nft(machine))
    machine.lacks = (lacks,)
    with pytest.raises(MissingError, match="no NAT") as caught:
        TranslationTable.find(Nft(machine))
    assert "modprobe" in caught.value.remedy
    assert machine.tables == {}


def devices(machine: Machine) -> list[str]:
    """Return the devices that are guarded."""
    return [block.removeprefix("chain egress-") for block in machine.tables[GUARD_TABLE]]


def test_the_guard_is_put_in_and_read_back(machine: Machine) -> None:
    """For the uplinks, and for those that may come where the kernel can."""
    rules = guard_for(OPEN, Facts((ETH0,), guard_mark=GUARD_MARK))
    guard = Guard(Nft(machine), in_advance=False, routed=False)
    guard.apply(rules)
    assert guard.verify(rules) == ()
    assert devices(machine) == ["eth0"]
    assert "rtclassid" not in str(machine.tables)
    more = Guard(Nft(machine), in_advance=True, routed=True)
    more.apply(rules)
    assert more.verify(rules) == ()
    assert devices(machine) == list(FUTURE_UPLINKS) == [f"eth{number}" for number in range(10)]
    assert "rtclassid != 0xffffffff" in str(machine.tables)
    assert guard.verify(rules) != ()


def test_a_name_with_a_sign_that_chains_cannot_have_is_guarded(machine: Machine) -> None:
    """Such as that of a VLAN: the device is the same, the chain has another name."""
    rules = guard_for(closed(), Facts((replace(ETH0, name="eth0@2"),), guard_mark=GUARD_MARK))
    Guard(Nft(machine), in_advance=False, routed=False).apply(rules)
    assert devices(machine) == ["eth0/a2"]
    assert 'device "eth0@2"' in str(machine.tables)
