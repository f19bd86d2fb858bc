"""Reading back through nft: equal rules compare as equal, and others do not."""

import os
from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.program import Nft
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import closed
from gateway.policy.guard import guard_for
from gateway.system import process
from tests.lab.namespace import Namespace
from tests.vocabulary import EVERY_WORD

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Return a namespace with nothing but loopback."""
    made = Namespace(f"pcn{os.getpid()}")
    made.create()
    yield made
    made.delete()


def by_another_nft(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
    """Run nft, and show the instructions that it would send in another way."""
    reported = process.run(argv, stdin=stdin, timeout=timeout)
    return reported.replace("cmp eq", "cmp ==") if "-c" in argv else reported


@pytest.mark.parametrize("nft", [Nft(), Nft(by_another_nft)], ids=["this nft", "another nft"])
def test_what_is_held_verifies_even_where_nft_shows_it_in_two_ways(
    namespace: Namespace, nft: Nft
) -> None:
    """Then the kernel is asked how it lists what is wanted; and changes are seen all the same."""
    firewall = NftablesFirewall(nft)
    namespace.inside(lambda: firewall.apply(EVERY_WORD))
    assert namespace.inside(lambda: firewall.verify(EVERY_WORD)) == ()
    namespace.nft("insert rule inet portcullis input accept")
    assert namespace.inside(lambda: firewall.verify(EVERY_WORD)) == (
        "chain input: not ours: accept",
    )
    assert namespace.run("nft", "list", "tables") == "table inet portcullis\n"


@pytest.mark.parametrize(
    "change",
    [
        "delete chain inet portcullis output",
        "delete chain inet portcullis output; add chain inet portcullis output",
        (
            "delete chain inet portcullis output; add chain inet portcullis output"
            " { type filter hook output priority 7; }"
        ),
        "add chain inet portcullis foreign; add rule inet portcullis input jump foreign",
        "add set inet portcullis foreign { type ipv4_addr; }",
        "add table inet portcullis { flags dormant; }",
    ],
)
def test_any_change_of_the_table_is_reverted(namespace: Namespace, change: str) -> None:
    """A chain that was made again is in another place, which means nothing."""
    firewall = NftablesFirewall()
    namespace.inside(lambda: firewall.apply(closed()))
    namespace.nft(change.replace("; add", "\nadd"))
    assert namespace.inside(lambda: firewall.verify(closed()))
    namespace.inside(lambda: firewall.apply(closed()))
    assert namespace.inside(lambda: firewall.verify(closed())) == ()


def test_refused_packets_are_counted_by_family_and_direction(namespace: Namespace) -> None:
    """Also by a rule that nft lists without its family, because an address implies it."""
    firewall = NftablesFirewall()
    namespace.inside(lambda: firewall.apply(closed()))
    before = namespace.inside(firewall.refused)
    namespace.run("ping", "-c1", "-W1", "127.0.0.11", check=False)
    after = namespace.inside(firewall.refused)
    assert after["ipv4", "out"] == before["ipv4", "out"] + 1
    assert after["ipv6", "out"] == before["ipv6", "out"]


def test_the_guard_follows_its_uplinks(namespace: Namespace) -> None:
    """They come and go in any order, with any name that the kernel allows."""
    guard = namespace.inside(Guard.find)
    for names in (["eth1"], ["eth1", "eth3"], ["eth3", "br-0.7@y"], [], ["eth0"]):
        for name in names:
            namespace.run("ip", "link", "add", name, "type", "veth")
        rules = guard_for(closed(), Facts(tuple(map(uplink, names)), guard_mark=0x1234))
        namespace.inside(lambda rules=rules: guard.apply(rules))
        assert namespace.inside(lambda rules=rules: guard.verify(rules)) == ()
        namespace.nft(
            "add rule netdev portcullis_guard egress-eth1 accept" if "eth1" in names else ""
        )
        assert bool(namespace.inside(lambda rules=rules: guard.verify(rules))) == ("eth1" in names)
        for name in names:
            namespace.run("ip", "link", "del", name)


def uplink(name: str) -> Uplink:
    """Return an uplink of this name."""
    return Uplink(name, 2, 1500, (ip_interface("172.30.0.2/24"),))
