"""The iptables firewall on tables in memory: built by the library, committed whole, read back.

Real is what the library makes of a rule; in memory is what libiptc does with the kernel's tables.
`tests/promises/test_firewall_contract.py` is the same on the kernel.
"""

import ctypes
import errno
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import FirewallError, MissingError
from gateway.firewall.marks import Marks
from gateway.firewall.xtables import building, legacy, library, render, tables
from gateway.firewall.xtables import firewall as module
from gateway.firewall.xtables.entry import (
    COUNTERS,
    ENTRY_SIZE,
    EXTENSION,
    HEADER_SIZE,
    OFFSETS,
    Entry,
    Part,
)
from gateway.firewall.xtables.firewall import IptablesFirewall
from gateway.firewall.xtables.marks import mark_of
from gateway.firewall.xtables.raw import HOOKS, INFO, VERDICT
from gateway.firewall.xtables.render import TABLES, table_of
from gateway.firewall.xtables.render import Kernel as Matches
from gateway.firewall.xtables.tables import COMMIT_ATTEMPTS, Table
from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.limits import SAME_USERS, LimitCode
from gateway.policy.rules import Accept, Chain, Drop, Family, Rule, Ruleset, SetMark
from gateway.system.netns import OWN
from tests.conftest import skip_or_fail
from tests.scenarios import FLOW_MARK, GUARD_MARK, SCENARIOS
from tests.vocabulary import EVERY_WORD

STANDARD = {b"ACCEPT", b"DROP"}
ALL = Matches()


@dataclass
class Held:
    """A rule of the kernel: its bytes, and its verdict, None where an extension decides."""

    blob: bytes
    verdict: bytes | None

    @classmethod
    def made_of(cls, family: Family, buffer: Any, chains: Collection[str]) -> "Held":
        """Take a rule over as the kernel does: a verdict becomes a number, its name is empty.

        One of `chains` is a verdict too.
        """
        blob = bytearray(buffer)
        target, _ = OFFSETS.unpack_from(blob, HEADER_SIZE[family] + 4)
        name = EXTENSION.unpack_from(blob, target)[1].partition(b"\0")[0]
        is_verdict = name in STANDARD or name.decode() in chains
        if is_verdict:
            blob[target + 2 : target + 31] = bytes(29)
        return cls(bytes(blob), name if is_verdict else None)

    def counting(self, family: Family, number: int) -> "Held":
        """Return the rule after it has met this many packets."""
        blob = bytearray(self.blob)
        COUNTERS.pack_into(blob, ENTRY_SIZE[family] - COUNTERS.size, number, 60 * number)
        return Held(bytes(blob), self.verdict)


@dataclass
class InKernel:
    """One table: the rules and the policy of each chain."""

    rules: dict[str, list[Held]]
    policies: dict[str, str]


@dataclass
class Kernel:
    """The legacy tables.

    `errors` are what the next commits raise; `opening` is called whenever a table is opened;
    `commits` has the table of each commit, with how many rules its chains hold.
    """

    held: dict[tuple[Family, str], InKernel] = field(default_factory=dict)
    errors: list[int] = field(default_factory=list)
    opening: Callable[[Family, str], None] = lambda _family, _name: None
    commits: list[tuple[Family, str, dict[str, int]]] = field(default_factory=list)

    @contextmanager
    def opened(self, family: Family, name: str, netns: object) -> Iterator["Handle"]:
        """Read a table, as `library.opened` does."""
        assert netns is OWN
        self.opening(family, name)
        yield Handle(self, family, name)

    def table(self, family: Family, name: str) -> InKernel:
        """Return a table; at first its chains are empty and accept."""
        fresh = InKernel({c: [] for c in TABLES[name]}, dict.fromkeys(TABLES[name], "ACCEPT"))
        return self.held.setdefault((family, name), fresh)


class Handle:
    """What python-iptables offers of an opened table: changes count once they are committed."""

    def __init__(self, kernel: Kernel, family: Family, name: str) -> None:
        now = kernel.table(family, name)
        self._kernel, self._family, self._name = kernel, family, name
        self._copy = InKernel({c: [*r] for c, r in now.rules.items()}, dict(now.policies))

    @property
    def chains(self) -> list[SimpleNamespace]:
        """The chains, the user's too."""
        return [SimpleNamespace(name=name) for name in self._copy.rules]

    def get_policy(self, chain: str) -> tuple[SimpleNamespace, None]:
        """Return the policy and the counters."""
        return SimpleNamespace(name=self._copy.policies[chain]), None

    def first_rule(self, chain: str) -> Any:
        """Return the first rule in memory."""
        return self._at(chain, 0)

    def next_rule(self, rule: Any) -> Any:
        """Return the rule after `rule`."""
        return self._at(rule.chain, rule.number + 1)

    def _at(self, chain: str, number: int) -> Any:
        if number >= len(self._copy.rules[chain]):
            return None
        held = self._copy.rules[chain][number]
        kind = type("Located", (ctypes.c_ubyte * (len(held.blob) + 8),), {})  # more lies behind it
        entry = kind.from_buffer_copy(held.blob + b"\xaa" * 8)
        entry.next_offset, entry.verdict = len(held.blob), held.verdict
        entry.chain, entry.number = chain, number
        return entry

    def get_target(self, rule: Any) -> bytes | None:
        """Return the name of the verdict."""
        verdict: bytes | None = rule.verdict
        return verdict

    def flush(self) -> None:
        """Empty the table; the user's chains go."""
        self._copy.rules = {chain: [] for chain in TABLES[self._name]}

    def set_policy(self, chain: str, policy: str) -> None:
        """Set the policy of a chain."""
        self._copy.policies[chain] = policy

    def create_chain(self, chain: str) -> None:
        """Add a chain of the user's."""
        self._copy.rules[chain] = []

    def append_entry(self, chain: str, buffer: Any) -> None:
        """Append a rule."""
        self._copy.rules[chain].append(Held.made_of(self._family, buffer, self._copy.rules))

    def commit(self) -> None:
        """Write the table."""
        if self._kernel.errors:
            raise FirewallError("Resource temporarily unavailable", "", self._kernel.errors.pop(0))
        self._kernel.held[self._family, self._name] = self._copy
        counted = {chain: len(rules) for chain, rules in self._copy.rules.items() if rules}
        self._kernel.commits.append((self._family, self._name, counted))


def standard(family: Family, target: bytes, rest: bytes) -> bytes:
    """Return an entry without conditions that ends in a target with these parameters."""
    size = ENTRY_SIZE[family]
    rest = EXTENSION.pack(EXTENSION.size + len(rest), target, 0) + rest
    sizes = bytes(4) + OFFSETS.pack(size, size + len(rest))
    return (bytes(HEADER_SIZE[family]) + sizes).ljust(size, b"\0") + rest


def compiled(table: InKernel, family: Family, name: str) -> tuple[bytes, bytes]:
    """Return a table as the kernel holds it: the built-in chains first, each with its policy."""
    numbers = {b"DROP": -1, b"ACCEPT": -2, b"RETURN": -5}
    policy = standard(family, b"", bytes(8))
    entries: list[tuple[bytes, bytes | None]] = []
    begins: dict[bytes, int] = {}
    ends: dict[bytes, int] = {}
    size = 0
    for chain in dict.fromkeys([*TABLES[name], *table.rules]):
        if chain not in TABLES[name]:
            entries.append((standard(family, b"ERROR", chain.encode().ljust(32, b"\0")), None))
            size += len(entries[-1][0])
        begins[chain.encode()] = size
        rules = [(rule.blob, rule.verdict) for rule in table.rules[chain]]
        size += sum(len(blob) for blob, _ in rules)
        ends[chain.encode()] = size
        entries += [*rules, (policy, table.policies.get(chain, "RETURN").encode())]
        size += len(policy)
    entries.append((standard(family, b"ERROR", b"ERROR".ljust(32, b"\0")), None))
    blob = bytearray()
    for entry, verdict in entries:
        target = OFFSETS.unpack_from(entry, HEADER_SIZE[family] + 4)[0]
        place = len(blob) + target + EXTENSION.size
        blob += entry
        if verdict is not None:
            places_of = {**begins, **numbers, b"CONTINUE": len(blob)}
            VERDICT.pack_into(blob, place, places_of[verdict])
    used = [hook.encode() in begins and hook in TABLES[name] for hook in HOOKS]
    places = [where.get(hook.encode(), 0) for where in (begins, ends) for hook in HOOKS]
    hooks = sum(is_used << number for number, is_used in enumerate(used))
    return INFO.pack(name.encode(), hooks, *places, len(entries), len(blob)), bytes(blob)


class Raw:
    """A table as bytes, as RawTable has it."""

    def __init__(self, kernel: Kernel, family: Family, name: str) -> None:
        self._kernel, self._family, self._name = kernel, family, name

    def read(self) -> tuple[bytes, bytes]:
        """Return the hooks and the entries."""
        self._kernel.opening(self._family, self._name)
        return compiled(self._kernel.table(self._family, self._name), self._family, self._name)

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    """Return a kernel in whose tables the gateway's modules read and write."""
    try:
        library.iptc.Rule().create_match("comment")
    except library.XTablesError as err:
        skip_or_fail(f"the extensions of iptables are not installed: {err}")
    made = Kernel()
    monkeypatch.setattr(tables, "opened", made.opened)
    monkeypatch.setattr(tables, "RawTable", lambda family, name, _netns: Raw(made, family, name))
    monkeypatch.setattr(legacy, "LOCK_FILE", str(tmp_path / "xtables.lock"))
    return made


def firewall(*, ipv6: bool = True, has: Callable[[Family], Matches] = lambda _: ALL) -> Any:
    """Return the firewall of a kernel with or without IPv6 and some matches."""
    return IptablesFirewall(lambda: ipv6, has)


def test_every_word_is_put_in_and_read_back(kernel: Kernel) -> None:
    """In the tables of both families, and nothing else is there afterwards."""
    both = firewall()
    both.apply(EVERY_WORD)
    assert both.verify(EVERY_WORD) == ()
    for family in Family:
        for name, policy in (("filter", "DROP"), ("mangle", "ACCEPT")):
            table = kernel.table(family, name)
            assert set(table.policies.values()) == {policy}
            wanted = {c: len(lines) for c, lines in table_of(EVERY_WORD, family, name).items()}
            assert {chain: len(rules) for chain, rules in table.rules.items()} == wanted
            assert len(table.rules) > len(TABLES[name]), "control: a set has chains of its own"


def test_two_rules_have_the_same_bytes_only_if_they_read_the_same(kernel: Kernel) -> None:
    """So that no part of a rule is lost on its way to the kernel, nor in the comparison."""
    del kernel
    for family in Family:
        for name in TABLES:
            built = Table(family, name, lambda _: ALL, OWN).build(EVERY_WORD)
            rules = [(hook, rule) for hook, chain in built.items() for rule in chain]
            for hook, rule in rules:
                same = [
                    other for where, other in rules if where == hook and other.entry == rule.entry
                ]
                assert {other.text for other in same} == {rule.text}


def test_an_interface_is_matched_by_its_whole_name(kernel: Kernel) -> None:
    """With a mask that ends behind the final zero, so that eth0 does not match eth01."""
    del kernel
    rule = Rule(why="w", verdict=Accept(), in_interface="lo", out_interface="eth0")
    for family in Family:
        ruleset = Ruleset(**{family.name.lower(): {Chain.OUTPUT: (rule,)}})
        (built,) = Table(family, "filter", lambda _: ALL, OWN).build(ruleset)["OUTPUT"]
        header = built.entry.header
        addresses = 16 if family is Family.IPV4 else 64
        names, masks = header[addresses : addresses + 32], header[addresses + 32 : addresses + 64]
        assert names == b"lo".ljust(16, b"\0") + b"eth0".ljust(16, b"\0")
        assert masks == (b"\xff" * 3).ljust(16, b"\0") + (b"\xff" * 5).ljust(16, b"\0")


def test_marks_are_not_in_the_text_of_a_rule(kernel: Kernel) -> None:
    """Which is logged when the rule is missing."""
    rule = Rule(why="w", verdict=SetMark(0x1234ABCD), mark=0xCA6C)
    ruleset = Ruleset(ipv4={Chain.OUTPUT_MARK: (rule,)})
    both = firewall()
    both.apply(ruleset)
    kernel.table(Family.IPV4, "mangle").rules["OUTPUT"].clear()
    assert both.verify(ruleset) == (
        (
            "iptables mangle OUTPUT: missing -A OUTPUT -m mark --mark (a mark)"
            " -m comment --comment w -j MARK --set-xmark (a mark)"
        ),
    )


RULES = Ruleset(
    ipv4={
        Chain.OUTPUT: (
            Rule(why="one", verdict=Accept(), out_interface="lo"),
            Rule(why="two", verdict=Drop()),
        ),
    },
)
MISSING = (
    "iptables filter OUTPUT: missing -A OUTPUT -o lo -m comment --comment one -j ACCEPT",
    "iptables filter OUTPUT: missing -A OUTPUT -m comment --comment two -j DROP",
)


def changed(change: Callable[[InKernel], None], kernel: Kernel) -> tuple[str, ...]:
    """Return the differences after `change` of the filter table of IPv4."""
    both = firewall()
    both.apply(RULES)
    change(kernel.table(Family.IPV4, "filter"))
    found: tuple[str, ...] = both.verify(RULES)
    return found


def test_each_difference_is_a_line(kernel: Kernel) -> None:
    """Where, and what; counts do not matter."""

    def policy(table: InKernel) -> None:
        table.policies["INPUT"] = "ACCEPT"

    def foreign(table: InKernel) -> None:
        table.rules["DOCKER"] = []

    def counted(table: InKernel) -> None:
        table.rules["OUTPUT"][0] = table.rules["OUTPUT"][0].counting(Family.IPV4, 7)

    where = "iptables filter"
    assert changed(lambda table: table.rules["OUTPUT"].clear(), kernel) == MISSING
    assert changed(lambda table: table.rules["OUTPUT"].reverse(), kernel) == (
        f"{where} OUTPUT: the rules are out of order",
    )
    assert changed(lambda t: t.rules["INPUT"].append(t.rules["OUTPUT"][0]), kernel) == (
        f"{where} INPUT: rule 1 is foreign (-j ACCEPT)",
    )
    assert changed(policy, kernel) == (f"{where} INPUT: the policy is ACCEPT",)
    assert changed(foreign, kernel) == (f"{where} DOCKER: foreign chain",)
    assert changed(counted, kernel) == ()


def test_a_jump_of_another_program_is_foreign(kernel: Kernel) -> None:
    """A target without a name that is a number is a verdict of its own."""

    def jump(table: InKernel) -> None:
        table.rules["INPUT"].append(Held(table.rules["OUTPUT"][0].blob, b"CONTINUE"))

    assert changed(jump, kernel) == ("iptables filter INPUT: rule 1 is foreign (-j CONTINUE)",)


def test_a_foreign_chain_counts_as_a_change_of_every_chain_of_ours(kernel: Kernel) -> None:
    """It may do to a packet what any of them does."""
    both = firewall()
    both.apply(EVERY_WORD)
    table = Table(Family.IPV4, "mangle", lambda _: ALL, OWN)
    chains = table.build(EVERY_WORD)
    assert table.changed(chains) == frozenset()
    kernel.table(Family.IPV4, "mangle").rules["POSTROUTING"].clear()
    assert table.changed(chains) == {Chain.POSTROUTING}
    kernel.table(Family.IPV4, "mangle").rules["DOCKER"] = []
    marking = {Chain.PREROUTING, Chain.OUTPUT_MARK, Chain.POSTROUTING}
    assert table.changed(chains) == marking


def test_marks_change_only_while_no_rule_depends_on_them(kernel: Kernel) -> None:
    """The deciding table first, without such rules; then the marks; then all of it."""
    marking = Rule(why="mark", verdict=SetMark(7), out_interface="eth0")
    by_mark = Rule(why="by mark", verdict=Accept(), mark=7)
    plain = Rule(why="plain", verdict=Accept(), out_interface="lo")
    ruleset = Ruleset(ipv4={Chain.OUTPUT_MARK: (marking,), Chain.OUTPUT: (plain, by_mark)})
    only = firewall(ipv6=False)
    only.apply(ruleset)
    assert kernel.commits == [
        (Family.IPV4, "filter", {"OUTPUT": 1}),
        (Family.IPV4, "mangle", {"OUTPUT": 1}),
        (Family.IPV4, "filter", {"OUTPUT": 2}),
    ]
    kernel.commits.clear()
    only.apply(ruleset)
    assert kernel.commits == [(Family.IPV4, "filter", {"OUTPUT": 2})], "no mark has changed"


def test_without_ipv6_there_is_one_family(kernel: Kernel) -> None:
    """The kernel is asked each time."""
    speaks: list[bool] = [False]
    both = IptablesFirewall(lambda: speaks[0], lambda _: ALL)
    both.apply(EVERY_WORD)
    assert {family for family, _ in kernel.held} == {Family.IPV4}
    assert both.verify(EVERY_WORD) == ()
    speaks[0] = True
    assert [line for line in both.verify(EVERY_WORD) if line.startswith("ip6tables")]


def test_rules_that_the_kernel_cannot_match_are_left_out_and_reported(kernel: Kernel) -> None:
    """The table would be refused as a whole."""
    blind = firewall(has=lambda family: Matches(extra_headers=family is Family.IPV6))
    assert [limit.code for limit in blind.limits] == [LimitCode.IPV4_OPTIONS]
    assert firewall().limits == ()
    blind.apply(EVERY_WORD)
    assert blind.verify(EVERY_WORD) == ()
    lines = firewall().verify(EVERY_WORD)
    assert lines
    assert all("iptables filter INPUT: missing" in line and "u32" in line for line in lines)
    wanted = table_of(EVERY_WORD, Family.IPV6, "filter")["INPUT"]
    assert len(kernel.table(Family.IPV6, "filter").rules["INPUT"]) == len(wanted)


@pytest.mark.usefixtures("kernel")
def test_a_rule_on_a_user_is_left_out_where_the_kernel_has_no_owner_match() -> None:
    """The table would be refused as a whole; the limit says what is missing."""
    blind = firewall(has=lambda _: Matches(owner=False))
    assert {limit.code for limit in blind.limits} == {LimitCode.RESOLVER_NOT_CONFINED}
    blind.apply(EVERY_WORD)
    assert blind.verify(EVERY_WORD) == ()
    lines = firewall().verify(EVERY_WORD)
    assert lines
    assert all("filter OUTPUT: missing" in line and "uid-owner" in line for line in lines)


@pytest.mark.usefixtures("kernel")
def test_where_another_user_namespace_owns_the_network_the_limit_says_so() -> None:
    """The kernel has the match, and refuses it there. Another module would not help."""
    others = firewall(has=lambda _: Matches(owner=False, has_our_users=False))
    (limit,) = others.limits
    assert (limit.code, limit.remedy) == (LimitCode.RESOLVER_NOT_CONFINED, SAME_USERS)
    others.apply(EVERY_WORD)
    assert others.verify(EVERY_WORD) == ()


@pytest.mark.usefixtures("kernel")
def test_where_the_user_namespace_lacks_ids_no_rule_has_a_user() -> None:
    """The kernel refuses such a rule, and the table with it. Services say what is missing."""
    few = firewall(has=lambda _: Matches(owner=False, has_ids=False))
    assert few.limits == ()
    few.apply(EVERY_WORD)
    assert few.verify(EVERY_WORD) == ()


@pytest.mark.parametrize("come_and_go", list(product([False, True], repeat=4)))
def test_what_comes_and_goes_meanwhile_is_not_taken_for_what_was_wanted(
    kernel: Kernel, come_and_go: tuple[bool, ...]
) -> None:
    """What is remembered is what was compared, and not what another reading found."""
    both = firewall()
    both.apply(RULES)
    table = kernel.table(Family.IPV4, "filter")
    clean, foreign = table.rules["INPUT"], [table.rules["OUTPUT"][0]]
    readings = iter(come_and_go)

    def read(family: Family, name: str) -> None:
        if (family, name) == (Family.IPV4, "filter"):
            table.rules["INPUT"] = foreign if next(readings, True) else clean

    kernel.opening = read
    for _ in come_and_go:
        both.verify(RULES)
    line = "iptables filter INPUT: rule 1 is foreign (-j ACCEPT)"
    assert both.verify(RULES) == (line,)


def test_what_the_kernel_does_not_hold_afterwards_is_an_error(kernel: Kernel) -> None:
    """Another program may have written after our commit."""
    number = [0]

    def tamper(family: Family, name: str) -> None:
        number[0] += 1
        if kernel.commits and name == "filter" and family is Family.IPV4:
            kernel.table(family, name).policies["OUTPUT"] = "ACCEPT"

    kernel.opening = tamper
    with pytest.raises(FirewallError) as caught:
        firewall(ipv6=False).apply(RULES)
    assert str(caught.value) == (
        "the kernel does not hold the rules: iptables filter OUTPUT: the policy is ACCEPT"
    )


def test_a_table_that_another_program_changes_meanwhile_is_written_again(kernel: Kernel) -> None:
    """Ten times; any other error counts at once."""
    table = Table(Family.IPV4, "filter", lambda _: ALL, OWN)
    chains = table.build(RULES)
    kernel.errors = [errno.EAGAIN] * (COMMIT_ATTEMPTS - 1)
    table.commit(chains)
    assert len(kernel.commits) == 1
    assert table.differences(chains) == []
    kernel.errors = [errno.EAGAIN] * COMMIT_ATTEMPTS
    with pytest.raises(FirewallError):
        table.commit(chains)
    assert (kernel.errors, COMMIT_ATTEMPTS) == ([], 10)
    kernel.errors = [errno.EPERM, errno.EAGAIN]
    with pytest.raises(FirewallError):
        table.commit(chains)
    assert kernel.errors == [errno.EAGAIN]


def test_both_marks_are_found_in_the_kernels_rules(kernel: Kernel) -> None:
    """None before there are any, and in each family."""
    both = firewall()
    both.apply(closed())
    assert both.marks() == Marks(None, None)
    both.apply(ruleset_for(*SCENARIOS["connected-guarded"]))
    assert both.marks() == Marks(FLOW_MARK, GUARD_MARK)
    state, config, facts = SCENARIOS["connected-ipv6-endpoint"]
    both.apply(ruleset_for(state, config, replace(facts, guard_mark=GUARD_MARK)))
    assert both.marks() == Marks(FLOW_MARK, GUARD_MARK)
    assert kernel.commits


def test_refused_packets_are_those_of_every_rule_that_does_not_accept(kernel: Kernel) -> None:
    """By family and direction, with zero for a chain that has refused none."""
    both = firewall()
    both.apply(EVERY_WORD)
    for family, number in ((Family.IPV4, 3), (Family.IPV6, 4)):
        rules = kernel.table(family, "filter").rules
        for chain in rules:
            met = number if chain.startswith("INPUT") else 0
            rules[chain] = [rule.counting(family, met) for rule in rules[chain]]
    refusing = {
        family: sum(
            not line.jump and not isinstance(line.rule.verdict, Accept)
            for chain, lines in table_of(EVERY_WORD, family, "filter").items()
            for line in lines
            if chain.startswith("INPUT")
        )
        for family in Family
    }
    assert both.refused() == {
        ("ipv4", "in"): 3 * refusing[Family.IPV4],
        ("ipv4", "forward"): 0,
        ("ipv4", "out"): 0,
        ("ipv6", "in"): 4 * refusing[Family.IPV6],
        ("ipv6", "forward"): 0,
        ("ipv6", "out"): 0,
    }


@pytest.mark.parametrize(
    ("number", "missing", "remedy"),
    [
        (errno.ENOENT, "no legacy table ip6tables filter", "modprobe ip6table_filter"),
        (errno.ENOPROTOOPT, "no legacy table ip6tables filter", "FIREWALL_BACKEND=nftables"),
        (errno.EAFNOSUPPORT, "no legacy table ip6tables filter", "modprobe ip6table_filter"),
        (errno.EPERM, "missing for ip6tables filter", "add NET_ADMIN and NET_RAW to cap_add"),
        (errno.EACCES, "missing for ip6tables filter", "add NET_ADMIN and NET_RAW to cap_add"),
    ],
)
def test_a_table_that_cannot_be_opened_has_a_remedy(
    kernel: Kernel, number: int, missing: str, remedy: str
) -> None:
    """Each kind of answer has its own."""

    def opening(family: Family, name: str) -> None:
        if (family, name) == (Family.IPV6, "filter"):
            raise FirewallError("no", "", number)

    kernel.opening = opening
    tables_of_ipv6 = Table(Family.IPV6, "filter", lambda _: ALL, OWN)
    with pytest.raises(MissingError) as caught:
        tables_of_ipv6.find()
    assert missing in caught.value.missing
    assert remedy in caught.value.remedy
    Table(Family.IPV4, "filter", lambda _: ALL, OWN).find()


def test_a_table_that_cannot_be_asked_for_is_not_missing(kernel: Kernel) -> None:
    """A shortage is not an answer."""

    def opening(_family: Family, _name: str) -> None:
        raise FirewallError("no", "", errno.ENOMEM)

    kernel.opening = opening
    with pytest.raises(FirewallError, match="no"):
        Table(Family.IPV4, "filter", lambda _: ALL, OWN).find()


def test_what_is_applied_is_shown_as_commands(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the level debug; the rules between the two only where there are any."""
    shown: list[list[str]] = []
    recorder = SimpleNamespace(show=lambda commands: shown.append(commands()))
    monkeypatch.setattr(module, "applied", recorder)
    only = firewall(ipv6=False)
    only.apply(RULES)
    assert len(shown) == 1
    assert "iptables -t filter -A OUTPUT -o lo -m comment --comment one -j ACCEPT" in shown[0]
    only.apply(ruleset_for(*SCENARIOS["connected-guarded"]))
    assert len(shown) == 3
    assert len(shown[1]) < len(shown[2])
    assert not [line for line in shown[2] if line.startswith("ip6tables")]
    assert kernel.commits


@pytest.mark.parametrize(
    ("error", "text", "number"),
    [
        (ValueError("no such value"), "no such value: a table", None),
        (AttributeError("no such name"), "no such name: a table", None),
        (OSError(errno.ENOENT, "No such file"), "No such file: a table", errno.ENOENT),
    ],
)
def test_an_error_of_the_library_is_ours(error: Exception, text: str, number: int | None) -> None:
    """With the number of the kernel, where it comes from there."""
    with pytest.raises(FirewallError) as caught, library.translated("a table"):
        raise error
    assert (str(caught.value), caught.value.errno) == (text, number)


def test_a_comment_that_is_not_text_has_no_mark() -> None:
    """Another program may have written it."""
    odd = Entry(b"", (Part("comment", "", 0, b"\xff\xfe\0"), Part("MARK", "", 2, b"\1\0\0\0")))
    ours = Entry(b"", (Part("comment", "", 0, b"why\0\0"), Part("MARK", "", 2, b"\7\0\0\0")))
    short = Entry(b"", (Part("comment", "", 0, b"why\0"), Part("MARK", "", 2, b"\7\0\0")))
    assert mark_of([odd, short, ours], "why") == 7
    assert mark_of([odd, short], "why") is None


def test_an_inverted_match_has_other_bytes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain headers are accepted, all others refused, and not the other way round."""
    del kernel
    rule = Rule(why="w", verdict=Drop(), extra_headers=True)

    def entry() -> Entry:
        building._made.cache_clear()  # noqa: SLF001 - what was made is remembered
        table = Table(Family.IPV6, "filter", lambda _: ALL, OWN)
        return table.build(Ruleset(ipv6={Chain.OUTPUT: (rule,)}))["OUTPUT"][0].entry

    inverted = entry()
    wanted = render.EXTRA_HEADERS[Family.IPV6]
    assert wanted.inverted
    monkeypatch.setitem(render.EXTRA_HEADERS, Family.IPV6, replace(wanted, inverted=False))
    assert entry() != inverted


def test_leftovers_are_looked_for_where_a_table_does_not_pass_everything(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time, whatever was there at another one."""
    monkeypatch.setattr(legacy, "RawTable", lambda family, name, _netns: Raw(kernel, family, name))
    monkeypatch.setattr(legacy, "_tables", lambda _family, _netns: tuple(TABLES))
    monkeypatch.setattr(legacy, "leftovers", lambda _netns: ("what is there",))
    found = legacy.Leftovers()
    assert found.find() == ()
    firewall().apply(RULES)
    rule = kernel.table(Family.IPV4, "filter").rules["OUTPUT"][0]
    kernel.held.clear()
    table = kernel.table(Family.IPV4, "mangle")
    changes: tuple[tuple[Callable[[], object], Callable[[], object]], ...] = (
        (lambda: table.rules["INPUT"].append(rule), table.rules["INPUT"].clear),
        (lambda: table.rules.update(DOCKER=[]), lambda: table.rules.pop("DOCKER")),
        (
            lambda: table.policies.update(OUTPUT="DROP"),
            lambda: table.policies.update(OUTPUT="ACCEPT"),
        ),
    )
    for change, back in changes:
        assert found.find() == ()
        change()
        assert found.find() == ("what is there",)
        back()
    assert found.find() == ()
