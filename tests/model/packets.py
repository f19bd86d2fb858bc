"""A small model of a packet's way through a firewall, in which both renderings can be tried.

A rule is what its text says: a list of conditions on a packet, and an effect. The two languages are
read by `iptables_text` and `nft_text`; what is here is what iptables-extensions(8) and nft(8)
agree on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from gateway.policy.rules import Chain, Family

INVALID = "INVALID"
"""The state of a packet that connection tracking has no flow for."""

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58

OUTGOING = (Chain.OUTPUT_MARK, Chain.OUTPUT, Chain.POSTROUTING)
INCOMING = (Chain.PREROUTING, Chain.INPUT)
FORWARDED = (Chain.PREROUTING, Chain.FORWARD, Chain.POSTROUTING)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One packet, and what the kernel knows about it when it meets the first chain.

    `later_fragment` is one that has no transport header. `extra_headers` says whether it has IPv4
    options or an IPv6 extension header other than that of a fragment. `syn` says whether it opens a
    TCP connection. `user` is that of the socket that sends it, None without one.
    `state` and `direction` are
    those of connection tracking; a packet whose state is INVALID has no flow: no direction and no
    connection mark.
    """

    family: Family
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    in_interface: str = ""
    out_interface: str = ""
    protocol: int = UDP
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    syn: bool = False
    later_fragment: bool = False
    extra_headers: bool = False
    user: int | None = None
    mark: int = 0
    connmark: int = 0
    state: str = "NEW"
    direction: str = "ORIGINAL"

    @property
    def has_flow(self) -> bool:
        """Whether connection tracking knows the packet."""
        return self.state != INVALID

    def has_ports(self, protocol: int) -> bool:
        """Whether there is a header of `protocol` to read ports from."""
        return self.protocol == protocol and not self.later_fragment


Condition = Callable[[Packet], bool]

ACCEPT, DROP, RESET, PROHIBITED = "accept", "drop", "reset", "prohibited"
"""What becomes of a packet."""


@dataclass(frozen=True)
class Effect:
    """What a rule does: end with a verdict, set a mark and go on, or visit another chain."""

    verdict: str | None = None
    jump: "TextChain | None" = None
    mark: int | None = None
    connmark: int | None = None


@dataclass(frozen=True)
class TextRule:
    """One rule as its text says it."""

    text: str
    conditions: tuple[Condition, ...]
    effect: Effect

    def matches(self, packet: Packet) -> bool:
        """Return whether every condition holds."""
        return all(condition(packet) for condition in self.conditions)


@dataclass(frozen=True)
class TextChain:
    """A chain: its rules in order, and what becomes of a packet that none of them decides.

    Without a policy the packet returns to where the chain was visited from.
    """

    policy: str | None
    rules: tuple[TextRule, ...]


Firewall = Mapping[tuple[Family, Chain], TextChain]


@dataclass(frozen=True)
class Outcome:
    """What became of a packet: the verdict, the marks it then has, and the rule that decided."""

    verdict: str
    mark: int
    connmark: int
    rule: str = ""

    def same(self, other: "Outcome") -> bool:
        """Compare all but the text of the rule."""
        return replace(self, rule="") == replace(other, rule="")


def walk(firewall: Firewall, way: tuple[Chain, ...], packet: Packet) -> Outcome:
    """Send `packet` through the chains of its `way`, in order."""
    rule = ""
    for where in way:
        chain = firewall[packet.family, where]
        verdict, rule, packet = _chain(chain, packet)
        if verdict != ACCEPT:
            return Outcome(verdict or DROP, packet.mark, packet.connmark, rule)
    return Outcome(ACCEPT, packet.mark, packet.connmark, rule)


def _chain(chain: TextChain, packet: Packet) -> tuple[str | None, str, Packet]:
    for rule in chain.rules:
        if not rule.matches(packet):
            continue
        if rule.effect.mark is not None:
            packet = replace(packet, mark=rule.effect.mark)
        if rule.effect.connmark is not None and packet.has_flow:
            packet = replace(packet, connmark=rule.effect.connmark)
        if rule.effect.jump is not None:
            verdict, text, packet = _chain(rule.effect.jump, packet)
            if verdict is not None:
                return verdict, text, packet
        if rule.effect.verdict is not None:
            return rule.effect.verdict, rule.text, packet
    return chain.policy, "policy", packet


def visits(chain: TextChain, packet: Packet) -> int:
    """Return how many rules `packet` is compared with in `chain` and in those that it leads to."""
    met = 0
    for rule in chain.rules:
        met += 1
        if not rule.matches(packet):
            continue
        if rule.effect.jump is not None:
            met += visits(rule.effect.jump, packet)
        if rule.effect.verdict is not None:
            break
    return met
