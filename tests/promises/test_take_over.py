"""One firewall takes over from the other without an open moment.

The kernel can hold two at once, and what either drops is dropped.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.errors import FirewallError
from gateway.firewall import Firewall
from gateway.firewall.choose import choose, take_over
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.xtables.firewall import IptablesFirewall
from gateway.lock import rules as lock_rules
from gateway.model import Backend
from gateway.policy.firewall import closed
from gateway.policy.rules import Accept, Chain, Rule, Ruleset
from tests.fakes.firewall import FakeFirewall
from tests.lab.internet import INTERNET
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1"), pytest.mark.no_gateway]

EVERYTHING = (Rule(why="everything", verdict=Accept()),)
OPEN = Ruleset(
    {Chain.INPUT: EVERYTHING, Chain.OUTPUT: EVERYTHING},
    {Chain.INPUT: EVERYTHING, Chain.OUTPUT: EVERYTHING},
)
"""What no gateway would ever apply: it shows that nothing else refuses."""

MAKE: dict[str, Callable[[], Firewall]] = {
    "iptables": IptablesFirewall.find,
    "nftables": NftablesFirewall.find,
}


def lock(lab: Lab, name: str) -> None:
    """Close the namespace as the gateway's first act does."""
    if name == "iptables":
        for program, rules in (("iptables", lock_rules.IPV4), ("ip6tables", lock_rules.IPV6)):
            lab.gateway_namespace.run(f"{program}-legacy-restore", "-w", "5", stdin=rules)
    else:
        lab.gateway_namespace.nft(lock_rules.NFTABLES)


def reached(lab: Lab) -> list[bool]:
    """Say for each family whether an ordinary packet comes back."""
    return [
        lab.workload.probe("udp", host=host, timeout=0.3).result == "answered"
        for host in INTERNET[0]
    ]


@pytest.mark.parametrize(("former", "latter"), [("iptables", "nftables"), ("nftables", "iptables")])
def test_the_chosen_firewall_alone_decides_afterwards(lab: Lab, former: str, latter: str) -> None:
    """Closed by the lock, closed after the hand-over; then the chosen one opens both families."""
    lock(lab, former)
    firewall = lab.gateway_namespace.inside(MAKE[latter])
    lab.gateway_namespace.inside(lambda: firewall.apply(OPEN))
    assert reached(lab) == [False, False], "control: the former one still refuses"
    lab.gateway_namespace.inside(lambda: take_over(firewall, closed()))
    assert reached(lab) == [False, False]
    assert lab.gateway_namespace.inside(lambda: firewall.verify(closed())) == ()
    lab.gateway_namespace.inside(lambda: firewall.apply(OPEN))
    assert reached(lab) == [True, True]


@pytest.mark.parametrize(("former", "latter"), [("iptables", "nftables"), ("nftables", "iptables")])
def test_no_frame_leaves_while_one_takes_over(lab: Lab, former: str, latter: str) -> None:
    """A flood in both families finds no moment between the two, to and fro.

    Limitations: ten hand-overs on this machine.
    """
    lock(lab, former)
    flood = lab.workload.flood("udp4", "udp6", "device4", "device6", rate=0)
    since = time.monotonic()
    for name in (latter, former) * 5:
        firewall = lab.gateway_namespace.inside(MAKE[name])
        lab.gateway_namespace.inside(lambda chosen=firewall: take_over(chosen, closed()))
    assert lab.capture.containing("flood-marker", since) == []
    lab.gateway_namespace.inside(lambda: firewall.apply(OPEN))
    lab.capture.wait_for(lambda frame: b"flood-marker" in frame.raw, since=since)
    assert flood.stop()["sent"], "control: the flood was there"


class Doubtful(FakeFirewall):
    """A firewall that takes everything and then does not hold it."""

    name = "nftables"

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Return a difference, always."""
        return super().verify(replace(ruleset, ipv4=OPEN.ipv4))


class Failing(FakeFirewall):
    """A firewall that cannot be written."""

    name = "nftables"

    def __init__(self) -> None:
        super().__init__()
        self.fails = True


@pytest.mark.parametrize("kind", [Doubtful, Failing])
def test_the_former_firewall_stays_when_the_chosen_one_is_in_doubt(
    lab: Lab, kind: type[FakeFirewall]
) -> None:
    """Nothing is emptied before the other refuses and has been read back."""
    lock(lab, "iptables")
    with pytest.raises(FirewallError):
        lab.gateway_namespace.inside(lambda: take_over(kind(), closed()))
    assert reached(lab) == [False, False]
    for program in ("iptables", "ip6tables"):
        assert ":OUTPUT DROP" in lab.gateway_namespace.run(f"{program}-legacy-save")


def test_docker_s_own_rules_are_left_alone(lab: Lab) -> None:
    """The resolver's table lives in the namespace, next to ours."""
    lab.docker_resolver()
    before = lab.gateway_namespace.run("nft", "list", "table", "ip", "nat")
    for name in ("iptables", "nftables", "iptables"):
        firewall = lab.gateway_namespace.inside(MAKE[name])
        lab.gateway_namespace.inside(lambda chosen=firewall: take_over(chosen, closed()))
    assert lab.gateway_namespace.run("nft", "list", "table", "ip", "nat") == before


def test_each_backend_can_be_asked_for_and_iptables_comes_first(lab: Lab) -> None:
    """As FIREWALL_BACKEND says."""
    for backend, name in {
        Backend.AUTO: "iptables",
        Backend.IPTABLES: "iptables",
        Backend.NFTABLES: "nftables",
    }.items():
        assert lab.gateway_namespace.inside(lambda wanted=backend: choose(wanted)).name == name


ASK = """
from gateway.errors import MissingError
from gateway.firewall.choose import choose
from gateway.firewall.nft.guard import Guard
from gateway.model import Backend
for ask in (lambda: choose(Backend.AUTO), lambda: choose(Backend.NFTABLES), Guard.find):
    try:
        ask()
    except MissingError as err:
        print(err.missing, "|", err.remedy)
"""


def test_without_the_capability_every_answer_names_it(lab: Lab) -> None:
    """A workload has no NET_ADMIN: it can neither have a firewall nor find out about one."""
    answers = lab.workload.run(sys.executable, "-c", ASK).splitlines()
    assert len(answers) == 3
    assert all("NET_ADMIN" in answer for answer in answers), answers
