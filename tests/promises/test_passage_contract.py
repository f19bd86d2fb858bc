"""What the ways to a vault have to do: one list for the kernel's and for the fakes."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from gateway.daemon.ports import Passage, Translator
from gateway.errors import NetworkError
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.translation import TABLE, TranslationTable
from gateway.model import INTERFACE, Config, PortRange, Protocol
from gateway.policy.facts import Facts, Uplink
from gateway.policy.passage import INSIDE, OUTSIDE, inner_end
from gateway.policy.translation import translation_for
from gateway.system.links import Links
from gateway.system.netns import Netns
from gateway.system.passage import VethPassage
from tests.fakes.passage import FakePassage, FakeTranslator
from tests.lab.namespace import Namespace
from tests.scenarios import IPV4_ONLY, ONE_UPLINK

pytestmark = [pytest.mark.no_gateway, pytest.mark.promise("P7", "P8", "P17")]

UPLINKS = ["eth0"]
END = inner_end((4, 6))
PORTS = (PortRange(Protocol.TCP, 80, 80), PortRange(Protocol.UDP, 53, 60))
LISTED = Config((IPV4_ONLY,), input_ports=PORTS)
REAL = pytest.param("kernel", marks=pytest.mark.lab)


@dataclass(frozen=True)
class Subject:
    """Both parts, and what another program does to them, by name."""

    passage: Passage
    translator: Translator
    damage: dict[str, Callable[[], None]]
    drop_table: Callable[[], None]


def in_memory() -> Subject:
    """Return the fakes."""
    passage, translator = FakePassage(*UPLINKS), FakeTranslator()

    def delete(name: str) -> None:
        passage.ends.pop(name)

    def other(**changes: object) -> None:
        passage.ends[INSIDE] = replace(passage.ends[INSIDE], **changes)

    return Subject(
        passage,
        translator,
        {
            "deleted": lambda: delete(OUTSIDE),
            "down": lambda: delete(INSIDE),
            "an address lost": lambda: other(addresses=END.addresses[:1]),
            "another size": lambda: other(mtu=1300),
            "neighbours resolved": lambda: other(index=9),
            "no forwarding": passage.forwarding.clear,
        },
        lambda: setattr(translator, "held", None),
    )


def in_kernel(stack: ExitStack) -> Subject:
    """Return the real ones, between two namespaces."""
    own, vault = (Namespace(f"ppas{os.getpid()}{end}") for end in "ab")
    for namespace in (own, vault):
        namespace.create()
        stack.callback(namespace.delete)
    own.ip("link add eth0 type veth peer name far0", "link set eth0 up")
    here, there = (Netns.at(namespace.path) for namespace in (own, vault))
    stack.callback(here.close)
    stack.callback(there.close)
    return Subject(
        VethPassage(Links(INTERFACE, here), Links(INTERFACE, there)),
        TranslationTable.find(Nft(netns=here)),
        {
            "deleted": lambda: own.ip(f"link del {OUTSIDE}"),
            "down": lambda: vault.ip(f"link set {INSIDE} down"),
            "an address lost": lambda: vault.ip(f"addr del {END.addresses[1]} dev {INSIDE}"),
            "another size": lambda: vault.ip(f"link set {INSIDE} mtu 1300"),
            "neighbours resolved": lambda: vault.ip(f"link set {INSIDE} arp on"),
            "no forwarding": lambda: own.sysctl("ipv4/conf/eth0/forwarding", 0),
        },
        lambda: own.nft(f"delete table {TABLE}"),
    )


@pytest.fixture(params=["in memory", REAL])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Return each in turn, with nothing there yet."""
    with ExitStack() as stack:
        yield in_memory() if request.param == "in memory" else in_kernel(stack)


@pytest.mark.parametrize("end", [END, inner_end((4,)), replace(END, mtu=1400)])
def test_a_pair_is_made_and_removed(subject: Subject, end: Uplink) -> None:
    """Control: before and afterwards something is missing. There may be nothing to remove."""
    passage = subject.passage
    passage.remove()
    assert passage.faults(end, UPLINKS)
    for _ in range(2):
        passage.make(end, UPLINKS)
        assert passage.faults(end, UPLINKS) == ()
    passage.remove()
    assert passage.faults(end, UPLINKS)


@pytest.mark.parametrize(
    "what",
    [
        "deleted",
        "down",
        "an address lost",
        "another size",
        "neighbours resolved",
        "no forwarding",
    ],
)
def test_what_another_program_does_is_found_and_put_back(subject: Subject, what: str) -> None:
    """Each change is a line."""
    passage = subject.passage
    passage.make(END, UPLINKS)
    subject.damage[what]()
    assert passage.faults(END, UPLINKS)
    passage.make(END, UPLINKS)
    assert passage.faults(END, UPLINKS) == ()


def test_another_end_is_made_in_its_place(subject: Subject) -> None:
    """With other addresses, or for other packets."""
    for end in (END, replace(END, mtu=1300), inner_end((4,)), END):
        assert subject.passage.faults(end, UPLINKS)
        subject.passage.make(end, UPLINKS)
        assert subject.passage.faults(end, UPLINKS) == ()


def test_an_uplink_that_has_gone_is_an_error(subject: Subject) -> None:
    """The namespace is looked at again then."""
    with pytest.raises(NetworkError):
        subject.passage.make(END, ["gone0"])


def test_a_translation_is_held_until_another_one_is(subject: Subject) -> None:
    """From nothing to holes, and back; each differs from the other."""
    wanted = [
        translation_for(config, facts, END)
        for config in (Config((IPV4_ONLY,)), LISTED, Config((IPV4_ONLY,)))
        for facts in (ONE_UPLINK, Facts())
    ]
    assert subject.translator.verify(wanted[0])
    for translation in wanted:
        subject.translator.apply(translation)
        assert subject.translator.verify(translation) == ()
    listed = translation_for(LISTED, ONE_UPLINK, END)
    assert subject.translator.verify(listed)


def test_a_table_that_is_gone_is_found_and_put_back(subject: Subject) -> None:
    """Control: it was in force."""
    listed = translation_for(LISTED, ONE_UPLINK, END)
    subject.translator.apply(listed)
    assert subject.translator.verify(listed) == ()
    subject.drop_table()
    assert subject.translator.verify(listed)
    subject.translator.apply(listed)
    assert subject.translator.verify(listed) == ()
