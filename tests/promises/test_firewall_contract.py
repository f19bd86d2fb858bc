"""What every firewall has to do, whatever kernel interface it uses.

One list of tests over all backends. A new one joins by a line in `SUBJECTS`: how it is made, and
what another program would run to change what it holds.
"""

import contextlib
import itertools
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest

from gateway.errors import FirewallError
from gateway.firewall import Firewall
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.program import Nft
from gateway.firewall.xtables.firewall import IptablesFirewall
from gateway.firewall.xtables.raw import ADDRESSES, RawTable
from gateway.firewall.xtables.render import Kernel, render
from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.rules import (
    Accept,
    Chain,
    Drop,
    Family,
    NetworkSet,
    Ports,
    Reject,
    Rule,
    Ruleset,
    SetMark,
    Transport,
)
from gateway.system.netns import OWN, Netns
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, Household, eventually, run
from tests.scenarios import SCENARIOS
from tests.vocabulary import EVERY_WORD

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]

PROGRAMS = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}
REFUSED = Rule(why="a reset without TCP", verdict=Reject(tcp_reset=True))
"""What the kernel refuses, as only it can know."""


def both(chains: Mapping[Chain, tuple[Rule, ...]]) -> Ruleset:
    """Return a ruleset with the same rules for both families."""
    return Ruleset(chains, chains)


TREE = "INPUT-2"
"""The chain that packets to `many` networks enter in `EVERY_WORD`."""


def by_iptables() -> dict[str, Sequence[str]]:
    """Return what someone might do to the legacy tables, in each table and family."""
    changes = {
        "flush filter": "-F",
        "flush mangle": "-t mangle -F",
        "policy of filter": "-P OUTPUT ACCEPT",
        "policy of a foreign chain of mangle": "-t mangle -P FORWARD DROP",
        "delete": "-D OUTPUT 1",
        "delete from mangle": "-t mangle -D PREROUTING 1",
        "insert": "-I OUTPUT -j ACCEPT",
        "append": "-A INPUT -j ACCEPT",
        "insert into mangle": "-t mangle -I OUTPUT -j MARK --set-mark 7",
        "rule in a chain that is not ours": "-t mangle -A INPUT -j ACCEPT",
        "chain": "-N foreign",
        "one bit of a mark": "-t mangle -R OUTPUT 1 -o eth0 -m comment --comment mark"
        " -j MARK --set-xmark 0x7/0xfffffffe",
        "another reason": "-R OUTPUT 1 -o lo -m comment --comment in -j ACCEPT",
        "another verdict": "-R OUTPUT 1 -o lo -m comment --comment out -j DROP",
        "every interface of that beginning": "-R OUTPUT 1 -o lo+ -m comment --comment out"
        " -j ACCEPT",
        "member removed from a set": f"-D {TREE} 1",
        "member added to a set": f"-A {TREE} -j {TREE}-rules",
        "rules of a set flushed": f"-F {TREE}-rules",
        "rule added for a set": f"-I {TREE}-rules -j ACCEPT",
    }
    return {
        f"{program}: {what}": (program, *words.split())
        for (what, words), program in itertools.product(changes.items(), PROGRAMS.values())
    }


def by_nft() -> dict[str, Sequence[str]]:
    """Return what someone might do to the table of nftables."""
    changes = {
        "flush": "flush table inet portcullis",
        "delete": "delete table inet portcullis",
        "flush a chain": "flush chain inet portcullis output",
        "policy": "chain inet portcullis output { policy accept; }",
        "insert": "insert rule inet portcullis output accept",
        "add": "add rule inet portcullis input accept",
        "mark": "insert rule inet portcullis output_mark meta mark set 7",
        "chain": "add chain inet portcullis foreign",
        "set": "add set inet portcullis foreign { type ipv4_addr; }",
        "network added to a set": "add element inet portcullis many4 { 203.0.113.77 }",
        "network removed from a set": "delete element inet portcullis many6 { fd00:0:0:1::/64 }",
        "port added to a set": "add element inet portcullis some_ports { 8 }",
        "port removed from a set": "delete element inet portcullis many_ports { 65535 }",
        "set flushed": "flush set inet portcullis many_ports",
    }
    return {f"nft: {what}": ("nft", words) for what, words in changes.items()}


@dataclass(frozen=True)
class Subject:
    """A backend under test, and the changes by others that it has to notice.

    Called from another namespace than its own if `elsewhere`.
    """

    make: Callable[[Netns], Firewall]
    foreign: Mapping[str, Sequence[str]]
    elsewhere: bool = False


def nftables(netns: Netns) -> Firewall:
    """Return the table of nftables of `netns`."""
    return NftablesFirewall.find(Nft(netns=netns))


SUBJECTS = {
    "iptables": Subject(IptablesFirewall.find, by_iptables()),
    "nftables": Subject(nftables, by_nft()),
    "iptables elsewhere": Subject(IptablesFirewall.find, {}, elsewhere=True),
    "nftables elsewhere": Subject(nftables, {}, elsewhere=True),
}
CHANGES = [(name, what) for name, subject in SUBJECTS.items() for what in subject.foreign]


class Bench:
    """A backend in a namespace of its own, joined to a neighbour by the link `tun0`.

    The name is chosen well: it differs from `lo` in no lowest bit of its letters, which is all that
    python-iptables would compare in an IPv6 rule.
    """

    def __init__(self, number: int, subject: Subject) -> None:
        """Build the namespaces, and one more to call from where the subject is `elsewhere`."""
        name = f"pcfw{os.getpid()}x{number}"
        self.household = Household(name)
        self.own = Namespace(name)
        self.far = Namespace(f"{name}far")
        self._caller = Namespace(f"{name}caller") if subject.elsewhere else self.own
        for namespace in {self.own, self.far, self._caller}:
            namespace.create()
        self._netns = Netns.at(self.own.path) if subject.elsewhere else OWN
        self.own.ip(f"link add tun0 type veth peer name far netns {self.far.name}")
        self.own.ip("link set tun0 up", "addr add 10.9.0.1/24 dev tun0")
        self.own.ip("addr add fd09::1/64 dev tun0 nodad")
        self.far.ip("link set far up", "addr add 10.9.0.2/24 dev far")
        self.far.ip("addr add fd09::2/64 dev far nodad")
        self.firewall: Firewall = self._caller.inside(lambda: subject.make(self._netns))
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        """Remove everything."""
        for opened in self._sockets:
            opened.close()
        self.household.close()
        self._netns.close()
        for namespace in {self.own, self.far, self._caller}:
            namespace.delete()

    def apply(self, ruleset: Ruleset) -> None:
        """Apply inside."""
        self._caller.inside(lambda: self.firewall.apply(ruleset))

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Verify inside."""
        return self._caller.inside(lambda: self.firewall.verify(ruleset))

    def listener(self, family: Family, port: int) -> socket.socket:
        """Return a UDP socket of the neighbour."""
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        listener = self.far.socket(kind, socket.SOCK_DGRAM)
        self._sockets.append(listener)
        listener.bind(("", port))
        listener.setblocking(False)
        return listener

    def sender(self, family: Family) -> socket.socket:
        """Return a UDP socket of our namespace."""
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        sender = self.own.socket(kind, socket.SOCK_DGRAM)
        self._sockets.append(sender)
        sender.setblocking(False)
        return sender


FAR = {Family.IPV4: "10.9.0.2", Family.IPV6: "fd09::2"}


@pytest.fixture
def benches() -> Iterator[Callable[[str], Bench]]:
    """Return a function that builds a bench for a backend by name."""
    built: list[Bench] = []

    def build(name: str) -> Bench:
        built.append(Bench(len(built), SUBJECTS[name]))
        return built[-1]

    yield build
    for bench in built:
        bench.close()


@pytest.fixture(params=[name for name, subject in SUBJECTS.items() if not subject.elsewhere])
def bench(request: pytest.FixtureRequest, benches: Callable[[str], Bench]) -> Bench:
    """Return a bench for each backend in turn."""
    return benches(request.param)


@pytest.fixture(params=SUBJECTS)
def any_bench(request: pytest.FixtureRequest, benches: Callable[[str], Bench]) -> Bench:
    """Return a bench for each backend, called from its own namespace and from another one."""
    return benches(request.param)


def sent(sender: socket.socket, family: Family, port: int) -> bool:
    """Send one datagram to the neighbour; say whether the kernel took it."""
    try:
        sender.sendto(b"probe", (FAR[family], port))
    except OSError:
        return False
    return True


def drained(listener: socket.socket) -> int:
    """Return how many datagrams have come."""
    count = 0
    try:
        while listener.recv(64):
            count += 1
    except BlockingIOError:
        return count
    return count


def test_what_was_applied_verifies(any_bench: Bench) -> None:
    """Every word of the vocabulary comes back from the kernel as it went in, in both families."""
    assert any_bench.verify(EVERY_WORD)
    any_bench.apply(EVERY_WORD)
    assert any_bench.verify(EVERY_WORD) == ()
    assert any_bench.verify(closed())


KERNELS = {"with multiport": Kernel(), "without multiport": Kernel(multiport=False)}


@pytest.mark.parametrize("name", ["connected-many-holes", "every word"])
@pytest.mark.parametrize("which", KERNELS)
def test_the_kernel_lists_the_text_of_the_golden_files(
    name: str, which: str, benches: Callable[[str], Bench]
) -> None:
    """As iptables-save reads it: also the lines of sets, which are made without its library.

    Kernels without xt_multiport have a line for each range of ports.
    """
    bench, kernel = benches("iptables"), KERNELS[which]
    ruleset = EVERY_WORD if name == "every word" else ruleset_for(*SCENARIOS[name])
    bench.firewall = IptablesFirewall(kernel=lambda _family: kernel)
    bench.apply(ruleset)
    assert bench.verify(ruleset) == ()
    for family, program in PROGRAMS.items():
        saved = bench.own.run(f"{program}-save").splitlines()
        held = [re.sub(r"\[\d+:\d+\]", "[0:0]", line) for line in saved if line[0] != "#"]
        assert sorted(held) == sorted(render(ruleset, family, kernel).splitlines())
        assert any("multiport" in line for line in held) is kernel.multiport


def each_after_every_other(count: int) -> list[int]:
    """Return a walk over `count` places in which each follows directly on every other, once."""
    rows = ((low, high) for low in range(count) for high in range(low + 1, count))
    return [*itertools.chain.from_iterable(rows), 0]


@pytest.mark.timeout(400)
def test_every_state_of_the_policy_can_be_applied_after_every_other(bench: Bench) -> None:
    """A ruleset replaces the former one whole, whichever that was."""
    rulesets = [ruleset_for(*scenario) for scenario in SCENARIOS.values()]
    chosen = rulesets[:1] + rulesets[3:]
    walk = each_after_every_other(len(chosen))
    pairs = set(itertools.pairwise(walk))
    assert pairs == set(itertools.permutations(range(len(chosen)), 2)), "control: every pair"
    for place in walk:
        bench.apply(chosen[place])
        assert bench.verify(chosen[place]) == ()


def test_applying_twice_is_applying_once(any_bench: Bench) -> None:
    """The same ruleset again changes nothing that can be seen."""
    for _ in range(2):
        any_bench.apply(EVERY_WORD)
        assert any_bench.verify(EVERY_WORD) == ()


@pytest.mark.promise("P17")
@pytest.mark.parametrize(("name", "what"), CHANGES)
def test_a_foreign_change_is_seen_and_put_back(
    name: str, what: str, benches: Callable[[str], Bench]
) -> None:
    """Changes by others to our tables are reported, and gone after the next apply."""
    bench = benches(name)
    bench.apply(EVERY_WORD)
    bench.own.run(*SUBJECTS[name].foreign[what])
    assert bench.verify(EVERY_WORD)
    bench.apply(EVERY_WORD)
    assert bench.verify(EVERY_WORD) == ()


def test_ipv6_that_appears_later_is_a_difference_and_gets_its_rules(
    benches: Callable[[str], Bench],
) -> None:
    """Its module can be loaded at any time, and its legacy tables are open until they are asked."""
    bench, speaks_ipv6 = benches("iptables"), False
    bench.firewall = IptablesFirewall(lambda: speaks_ipv6)
    bench.apply(closed())
    assert bench.verify(closed()) == ()
    assert sent(bench.sender(Family.IPV6), Family.IPV6, 7), "control"
    speaks_ipv6 = True
    found = bench.verify(closed())
    assert found
    assert all("ip6tables" in line for line in found)
    bench.apply(closed())
    assert bench.verify(closed()) == ()
    assert not sent(bench.sender(Family.IPV6), Family.IPV6, 7)


@pytest.mark.parametrize("family", Family)
def test_refused_packets_are_counted_behind_a_set_too(bench: Bench, family: Family) -> None:
    """One for each datagram to a member, and none for one to a neighbour of a member."""
    near, far = ("10.9.0.2/32", "10.9.0.4/32"), ("fd09::2/128", "fd09::4/128")
    listed = NetworkSet("nets", "x", tuple(map(ip_network, {4: near, 6: far}[family.value])))
    drop = Rule(why="d", verdict=Drop(), destination=listed, protocol=Transport.UDP)
    accept = Rule(why="a", verdict=Accept(), out_interface="tun0")
    chains = {Chain.OUTPUT: (drop, accept)}
    bench.apply(Ruleset(ipv4=chains) if family is Family.IPV4 else Ruleset(ipv6=chains))
    where = family.name.lower(), "out"
    sender, counts = bench.sender(family), []
    for host in (2, 3, 4, 5):
        with contextlib.suppress(OSError):
            sender.sendto(b"probe", (FAR[family][:-1] + str(host), 7))
        counts.append(bench.own.inside(bench.firewall.refused)[where])
    assert counts == [1, 1, 2, 2]


def test_what_cannot_be_expressed_changes_nothing(any_bench: Bench) -> None:
    """An impossible rule is refused before the first change."""
    any_bench.apply(EVERY_WORD)
    wrong = Rule(why="a name that is too long", verdict=Accept(), out_interface="x" * 16)
    with pytest.raises(FirewallError):
        any_bench.apply(both({Chain.OUTPUT: (wrong,)}))
    assert any_bench.verify(EVERY_WORD) == ()


def test_a_mark_in_a_difference_stays_secret(bench: Bench) -> None:
    """The egress guard lets pass what has its mark, so no log may show it."""
    secret = Rule(why="guard", verdict=SetMark(0x5EC2E7), out_interface="tun0")
    lines = bench.verify(both({Chain.POSTROUTING: (secret,)}))
    reported = " ".join(lines).lower()
    assert lines
    assert "5ec2e7" not in reported
    assert str(0x5EC2E7) not in reported


@pytest.mark.parametrize("family", Family)
def test_a_rule_for_one_interface_means_that_interface(any_bench: Bench, family: Family) -> None:
    """`lo` is not `tun0`: not by its beginning, and not by the lowest bits of its letters.

    Limitations: two names stand for all.
    """
    listener, sender = any_bench.listener(family, 7000), any_bench.sender(family)
    assert sent(sender, family, 7000), "control: open before the lock"
    any_bench.far.run("sleep", "0.1")
    assert drained(listener) == 1, "control: the neighbour hears"
    any_bench.apply(closed())
    assert not sent(sender, family, 7000)
    any_bench.far.run("sleep", "0.1")
    assert drained(listener) == 0


def ruleset_by_marks(port: int, mark: int, accepted: int) -> Ruleset:
    """Return a ruleset that gives datagrams to `port` the mark, and lets out another mark."""
    marking = Rule(
        why="mark",
        verdict=SetMark(mark),
        protocol=Transport.UDP,
        destination_ports=Ports(port, port),
    )
    neighbour = Rule(
        why="neighbours",
        verdict=Accept(),
        protocol=Transport.ICMPV6,
        destination=ip_network("fe80::/10"),
    )
    accepting = Rule(why="accept", verdict=Accept(), mark=accepted)
    neighbours = tuple(
        replace(neighbour, destination=ip_network(network))
        for network in ("fe80::/10", "fd09::/64", "ff02::/16")
    )
    inward = {Chain.INPUT: tuple(replace(rule, destination=None) for rule in neighbours[:1])}
    ipv4 = {Chain.OUTPUT_MARK: (marking,), Chain.OUTPUT: (accepting,)}
    return Ruleset(ipv4, {**inward, **ipv4, Chain.OUTPUT: (accepting, *neighbours)})


@pytest.mark.promise("P1")
@pytest.mark.parametrize("family", Family)
def test_no_moment_passes_what_neither_ruleset_does(bench: Bench, family: Family) -> None:
    """The old marks never meet the new accepts, nor the new marks the old accepts.

    Both rulesets refuse port 7001. Half of one and half of the other would let it out.

    Limitations: 40 changes under a flood from one thread of this machine.
    """
    listener, sender = bench.listener(family, 7001), bench.sender(family)
    bench.apply(ruleset_by_marks(7001, mark=1, accepted=1))
    sent(sender, family, 7001)
    bench.far.run("sleep", "0.1")
    assert drained(listener) >= 1, "control: marked and accepted, it arrives"
    flood = bench.household.start(
        bench.own.command(["sh", "-c", FLOOD.format(FAR[family], 7001)]), "flood"
    )
    flood.wait_for("ready")
    bench.apply(closed())
    bench.far.run("sleep", "0.1")
    drained(listener)
    for _ in range(20):
        bench.apply(ruleset_by_marks(7001, mark=1, accepted=2))
        bench.apply(ruleset_by_marks(7001, mark=2, accepted=1))
    assert drained(listener) == 0
    bench.apply(ruleset_by_marks(7001, mark=1, accepted=1))
    bench.far.run("sleep", "0.1")
    assert drained(listener) > 100, "control: the flood was there all the time"
    flood.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_continues_while_the_rules_change(bench: Bench, address: str) -> None:
    """A connection attempt that is lost is tried again a second later: a health check would fail.

    Limitations: as many moments as one client meets in 20 changes.
    """
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    stopped = threading.Event()
    seconds: list[float] = []

    def connect_again_and_again() -> None:
        with socket.create_server((address, 7002), family=kind) as server:
            while not stopped.is_set():
                begin = time.monotonic()
                with socket.create_connection((address, 7002), timeout=5 * PATIENCE):
                    server.accept()[0].close()
                seconds.append(time.monotonic() - begin)

    states = [ruleset_for(*SCENARIOS[name]) for name in ("connecting", "connected-guarded")]
    bench.apply(states[0])
    client = threading.Thread(target=bench.own.inside, args=(connect_again_and_again,))
    client.start()
    for ruleset in states * 10:
        bench.apply(ruleset)
    stopped.set()
    client.join()
    assert len(seconds) > 100, "control: it was tried all the time"
    assert max(seconds) < 0.9 * PATIENCE


@pytest.mark.parametrize("family", Family)
def test_a_table_is_read_as_the_same_bytes_until_a_packet_or_a_rule_changes_them(
    family: Family, benches: Callable[[str], Bench]
) -> None:
    """Counters count as a change here; the comparison of rules leaves them out."""
    bench = benches("iptables")
    bench.apply(closed())
    table = RawTable(family, "filter", Netns.at(f"/run/netns/{bench.own.name}"))
    first = table.read()
    assert table.read() is first
    kind, address = ADDRESSES[family], {4: "127.0.0.1", 6: "::1"}[family.value]
    with bench.own.socket(kind, socket.SOCK_DGRAM) as out:
        out.sendto(b"counted", (address, 9))
    counted = table.read()
    assert counted != first
    assert table.read() is counted
    bench.apply(EVERY_WORD)
    changed = table.read()
    assert len(changed[1]) != len(first[1])
    bench.apply(closed())
    assert table.read()[1] != changed[1]


FLOOD = """exec python3 -I -S -c '
import socket
to = ("{0}", {1})
out = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
while True:
    try:
        out.sendto(b"flood", to)
    except OSError:
        pass
'"""

MEDDLING = {
    "with the lock of iptables": "iptables-legacy -w 5 -t {0} {1} FORWARD -j DROP",
    "without it": "XTABLES_LOCKFILE=/dev/null iptables-legacy -t {0} {1} FORWARD -j DROP",
}


@pytest.mark.parametrize("how", MEDDLING)
def test_an_apply_among_foreign_changes_holds_or_says_so(
    how: str, benches: Callable[[str], Bench]
) -> None:
    """Someone adds and removes rules all the time; what is applied is whole all the same.

    An apply may fail because the meddler was there between writing and reading back, but it says
    so, and afterwards the next one holds. Without the lock, the meddler also writes back what it
    read before: a table of ours that has been replaced meanwhile.
    """
    bench = benches("iptables")
    lines = [MEDDLING[how].format(t, do) for t in ("filter", "mangle") for do in ("-A", "-D")]
    script = f"echo ready; while :; do {'; '.join(lines)}; done 2>/dev/null"
    meddler = bench.household.start(bench.own.command(["sh", "-c", script]), "meddler")
    meddler.wait_for("ready")
    held = 0
    for _ in range(60):
        try:
            bench.apply(EVERY_WORD)
        except FirewallError as error:
            assert "does not hold" in str(error) or error.errno is not None, error  # noqa: PT017
        else:
            held += 1
    meddler.close()
    eventually(lambda: not bench.own.pids(), timeout=5, what="the last program of the meddler")
    assert held
    bench.apply(EVERY_WORD)
    assert bench.verify(EVERY_WORD) == ()


@pytest.mark.promise("P1")
def test_a_refused_commit_is_an_error_and_opens_nothing(benches: Callable[[str], Bench]) -> None:
    """The kernel refuses a table of iptables: the former rules stand, or stricter ones."""
    bench = benches("iptables")
    bench.apply(closed())
    with pytest.raises(FirewallError) as caught:
        bench.apply(both({Chain.OUTPUT: (REFUSED,)}))
    assert caught.value.errno
    assert bench.verify(closed()) == ()
    marks = {Chain.OUTPUT_MARK: (Rule(why="mark", verdict=SetMark(1)),)}
    with pytest.raises(FirewallError):
        bench.apply(both({**marks, Chain.OUTPUT: (REFUSED,)}))
    assert bench.verify(closed()) == ()


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", ["every word", *SCENARIOS])
def test_the_rules_of_iptables_are_those_of_its_own_tool(
    name: str, family: Family, benches: Callable[[str], Bench]
) -> None:
    """What we put in reads as the golden file, and what the tool puts in verifies as ours."""
    ruleset = EVERY_WORD if name == "every word" else ruleset_for(*SCENARIOS[name])
    bench = benches("iptables")
    bench.apply(ruleset)
    program = PROGRAMS[family]
    assert saved(bench, program) == tables(render(ruleset, family))
    bench.apply(closed())
    bench.own.run(f"{program}-restore", stdin=render(ruleset, family))
    where = "iptables" if family is Family.IPV4 else "ip6tables"
    lines = bench.verify(ruleset)
    assert [line for line in lines if line.startswith(f"{where} ")] == []


def saved(bench: Bench, program: str) -> dict[str, list[str]]:
    """Return what the kernel's own tool says of each table."""
    return tables("".join(bench.own.run(f"{program}-save", "-t", t) for t in ("filter", "mangle")))


def tables(text: str) -> dict[str, list[str]]:
    """Return the lines of each table without counters and remarks."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            found[line] = []
        elif line.startswith((":", "-")):
            found[list(found)[-1]].append(line.partition(" [")[0] if line[0] == ":" else line)
    return found


def test_a_link_that_goes_away_does_not_matter_to_the_rules(any_bench: Bench) -> None:
    """Rules name interfaces by their names, so that they hold before and after."""
    ruleset = both(
        {Chain.OUTPUT: (Rule(why="gone", verdict=Accept(), out_interface="tun0"),)},
    )
    any_bench.apply(ruleset)
    run(["ip", "-n", any_bench.own.name, "link", "del", "tun0"])
    assert any_bench.verify(ruleset) == ()
    any_bench.apply(ruleset)
    assert any_bench.verify(ruleset) == ()
