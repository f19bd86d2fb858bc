"""Which firewall is chosen, and in which order it takes over from the other one."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import FirewallError, MissingError
from gateway.firewall import choose as module
from gateway.firewall.choose import choose, take_over
from gateway.firewall.nft import firewall as nft_firewall
from gateway.firewall.nft.program import Nft
from gateway.model import Backend
from gateway.policy.firewall import closed
from gateway.policy.rules import Ruleset
from gateway.system.netns import OWN, Netns

NETNS = Netns(None, "another")
IPTABLES_MISSING = MissingError("no legacy tables", "load them")
NFTABLES_MISSING = MissingError("no nftables", "load it")


class Found:
    """A firewall of the machine; `limits` is what it cannot refuse."""

    def __init__(self, name: str, *limits: str) -> None:
        self.name = name
        self.limits = limits


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    iptables: Found | MissingError,
    nftables: Found | MissingError,
) -> Any:
    """Return what is chosen on a machine that has these."""

    def find(which: Found | MissingError) -> Any:
        def found(asked: object) -> Found:
            assert getattr(asked, "netns", asked) is NETNS, "the namespace that was asked for"
            if isinstance(which, MissingError):
                raise which
            return which

        return found

    monkeypatch.setattr(module, "_iptables", find(iptables))
    monkeypatch.setattr(module, "NftablesFirewall", SimpleNamespace(find=find(nftables)))
    return choose(backend, NETNS)


IPTABLES, NFTABLES = Found("iptables"), Found("nftables")
BLIND = Found("iptables", "IPv4 options")


@pytest.mark.parametrize(
    ("backend", "iptables", "nftables", "expected"),
    [
        (Backend.IPTABLES, IPTABLES, NFTABLES, IPTABLES),
        (Backend.IPTABLES, BLIND, NFTABLES, BLIND),
        (Backend.NFTABLES, IPTABLES, NFTABLES, NFTABLES),
        (Backend.AUTO, IPTABLES, NFTABLES, IPTABLES),
        (Backend.AUTO, IPTABLES, NFTABLES_MISSING, IPTABLES),
        (Backend.AUTO, BLIND, NFTABLES, NFTABLES),
        (Backend.AUTO, BLIND, NFTABLES_MISSING, BLIND),
        (Backend.AUTO, IPTABLES_MISSING, NFTABLES, NFTABLES),
    ],
)
def test_the_first_that_refuses_everything_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    iptables: Found | MissingError,
    nftables: Found | MissingError,
    expected: Found,
) -> None:
    """Unless the user has chosen, even if it has limits."""
    assert chosen(monkeypatch, backend, iptables, nftables) is expected


@pytest.mark.parametrize("backend", [Backend.IPTABLES, Backend.NFTABLES])
def test_a_choice_of_the_user_that_is_not_there_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """The error names the one that was asked for."""
    with pytest.raises(MissingError) as caught:
        chosen(monkeypatch, backend, IPTABLES_MISSING, NFTABLES_MISSING)
    wanted = IPTABLES_MISSING if backend is Backend.IPTABLES else NFTABLES_MISSING
    assert caught.value is wanted


def test_without_any_both_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is enough."""
    with pytest.raises(MissingError) as caught:
        chosen(monkeypatch, Backend.AUTO, IPTABLES_MISSING, NFTABLES_MISSING)
    assert caught.value.missing == "no firewall: no legacy tables, and no nftables"
    assert caught.value.remedy == "one of the two: load them; or load it"


class Firewall:
    """Notes what is done to it; `problems` are what each comparison finds."""

    def __init__(self, name: str, calls: list[str], *problems: tuple[str, ...]) -> None:
        self.name = name
        self.calls = calls
        self.problems = list(problems)

    def apply(self, ruleset: Ruleset) -> None:
        """Put rules in."""
        assert ruleset == closed()
        self.calls.append("apply")

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Compare."""
        assert ruleset == closed()
        self.calls.append("verify")
        return self.problems.pop(0) if self.problems else ()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is done to the firewall and to the other one, in order."""
    made: list[str] = []

    def empties(what: str) -> Any:
        def act(netns: object = None) -> None:
            made.append(what if what == "wait" else f"{what} {netns is OWN}")

        return act

    monkeypatch.setattr(module, "wait_for_packets_in_flight", empties("wait"))
    monkeypatch.setattr(module, "legacy", SimpleNamespace(empty=empties("empty legacy")))
    monkeypatch.setattr(module, "remove_leftover", empties("remove nftables"))
    return made


@pytest.mark.parametrize(
    ("name", "after"),
    [("nftables", ["wait", "empty legacy True", "verify"]), ("iptables", ["remove nftables True"])],
)
def test_the_other_firewall_lets_go_only_when_this_one_has_been_read_back(
    calls: list[str], name: str, after: list[str]
) -> None:
    """And when the packets that it has not met are gone; `remove_leftover` waits by itself."""
    take_over(Firewall(name, calls), closed())  # type: ignore[arg-type]  # two of its methods
    assert calls == ["apply", "verify", *after]


def test_a_firewall_that_does_not_hold_the_rules_does_not_take_over(calls: list[str]) -> None:
    """The other one stays in force."""
    wrong = Firewall("nftables", calls, ("a", "b"))
    with pytest.raises(FirewallError, match=r"^taking over: a; b$"):
        take_over(wrong, closed())  # type: ignore[arg-type]
    assert calls == ["apply", "verify"]


@pytest.mark.parametrize("there", [True, False])
def test_a_leftover_of_nftables_is_removed_once_no_packet_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """Only where there is one: to wait takes some 15 ms of every start."""
    calls: list[str] = []

    class Found(Nft):
        def is_in_kernel(self) -> bool:
            return True

        def surely_lacks(self, table: str) -> bool:
            assert table == "inet portcullis"
            return not there

        def load(self, text: str) -> None:
            calls.append(text)

    monkeypatch.setattr(nft_firewall, "wait_for_packets_in_flight", lambda: calls.append("wait"))
    monkeypatch.setattr(nft_firewall, "Nft", Found)
    monkeypatch.setattr(nft_firewall.process, "find_program", lambda _program: "/usr/sbin/nft")
    nft_firewall.remove_leftover()
    removed = "add table inet portcullis\ndelete table inet portcullis\n"
    assert calls == (["wait", removed] if there else [])
