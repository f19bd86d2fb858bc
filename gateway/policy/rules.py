"""The vocabulary of firewall rules: what a rule matches, its verdict, and why it exists.

A `Ruleset` is complete: for both families it has every chain that the gateway owns, and a
backend puts it into force as a whole. The two backends render the same values. A rule means what
iptables(8) and nft(8) agree on for its matches. The filter chains have the policy DROP in
every ruleset, so the policy is not a field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Protocol as TypingProtocol

from gateway.model import Network
from gateway.model.frozen import frozen

LONGEST_NAME = 15
"""Characters of the longest name of a link (IFNAMSIZ without the final zero)."""

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-")


def is_nameable(link: str) -> bool:
    """Return whether rules can use the name `link`: both firewalls match exactly one link with it.

    The kernel allows more names: a rule for `eth+` or `eth*` would match other links too.
    """
    return 0 < len(link) <= LONGEST_NAME and NAME_CHARACTERS.issuperset(link)


class Family(Enum):
    """The two IP families; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6

    def has(self, thing: "Versioned") -> bool:
        """Return whether an address, interface or network is of this family."""
        return thing.version == self.value


class Versioned(TypingProtocol):
    """Anything with an IP version: the addresses, interfaces and networks of `ipaddress`."""

    @property
    def version(self) -> int:
        """The IP version, 4 or 6."""


class Chain(Enum):
    """The chains that the gateway owns, as (iptables table, iptables chain)."""

    PREROUTING = ("mangle", "PREROUTING")
    INPUT = ("filter", "INPUT")
    FORWARD = ("filter", "FORWARD")
    OUTPUT_MARK = ("mangle", "OUTPUT")
    OUTPUT = ("filter", "OUTPUT")
    POSTROUTING = ("mangle", "POSTROUTING")

    @property
    def table(self) -> str:
        """The iptables table that the chain is in."""
        return self.value[0]

    @property
    def hook(self) -> str:
        """The iptables name of the chain."""
        return self.value[1]


class Transport(StrEnum):
    """The protocols that a rule can name, by their names in /etc/protocols."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    ICMPV6 = "ipv6-icmp"


ICMP_OF: Mapping[Family, Transport] = MappingProxyType(
    {Family.IPV4: Transport.ICMP, Family.IPV6: Transport.ICMPV6}
)
"""The ICMP of each family."""


class CtState(StrEnum):
    """The states of connection tracking, iptables-extensions(8), conntrack."""

    NEW = "NEW"
    ESTABLISHED = "ESTABLISHED"
    RELATED = "RELATED"


class CtDirection(StrEnum):
    """The direction of a packet in its flow, iptables-extensions(8), `--ctdir`."""

    ORIGINAL = "ORIGINAL"
    REPLY = "REPLY"


@frozen
class Accept:
    """The packet passes."""


@frozen
class Drop:
    """The packet disappears without an answer."""


@frozen
class Reject:
    """The packet disappears and its sender gets an answer: a TCP reset, or an ICMP error.

    Without `tcp_reset` the answer is ICMP "administratively prohibited" of the family. A rule
    with `tcp_reset` must match TCP.
    """

    tcp_reset: bool = False


@frozen
class SetMark:
    """The packet gets the mark `value` and continues (mangle chains only)."""

    value: int


@frozen
class SetConnmark:
    """The packet's flow gets the connection mark `value`; the packet continues (mangle only)."""

    value: int


Verdict = Accept | Drop | Reject | SetMark | SetConnmark


@frozen
class Ports:
    """The ports `first` to `last`, both included."""

    first: int
    last: int

    @classmethod
    def one(cls, port: int) -> "Ports":
        """Return the range of `port` alone."""
        return cls(port, port)


@frozen
class NetworkSet:
    """The addresses of all `members`: at least two networks of one family, sorted and disjoint.

    A firewall may keep a set as an object of its own, with this name and reason. So within a
    ruleset, sets of one family with one name are equal. `gateway.policy.sets` makes them.
    """

    name: str
    why: str
    members: tuple[Network, ...]

    def __hash__(self) -> int:
        return hash(self.name)


@frozen
class PortSet:
    """The ports of all `members`: at least two ranges, sorted and disjoint; see `NetworkSet`."""

    name: str
    why: str
    members: tuple[Ports, ...]

    def __hash__(self) -> int:
        return hash(self.name)


Networks = Network | NetworkSet
"""The addresses that a rule matches."""

AnyPorts = Ports | PortSet
"""The ports that a rule matches."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Packets that match every field that is not None get `verdict`.

    `why` explains the rule to an operator who lists the rules: one line of printable ASCII without
    quotes or backslashes, at most 128 characters, that names the promise. Ports need
    `protocol` TCP or UDP, `icmp_type` needs ICMP or ICMPV6. `ct_states` matches any of the states.
    At most one field is a set. `syn` matches what opens a TCP connection, SYN without ACK (RFC
    9293, section 3.5), and needs TCP.

    `extra_headers` matches packets with IPv4 options (RFC 791, section 3.1) or with an IPv6
    extension header (RFC 8200, section 4): they can say where a packet goes next. For IPv6 a
    backend may also match packets of protocols other than TCP, UDP and ICMPv6. Use it only in rules
    that refuse: a backend omits such a rule if the kernel cannot match it (`Firewall.limits`).
    `user` is the id of the user whose socket sends the packet: it matches only what leaves from
    here, and no packet without a socket. A rule with it is omitted likewise: one that refuses has a
    limit of its own, and without one that accepts more is refused.
    """

    why: str
    verdict: Verdict
    in_interface: str | None = None
    out_interface: str | None = None
    source: Networks | None = None
    destination: Networks | None = None
    protocol: Transport | None = None
    source_ports: AnyPorts | None = None
    destination_ports: AnyPorts | None = None
    icmp_type: int | None = None
    syn: bool = False
    extra_headers: bool = False
    user: int | None = None
    mark: int | None = None
    connmark: int | None = None
    ct_states: frozenset[CtState] = frozenset()
    ct_direction: CtDirection | None = None


ChainRule = tuple[Chain, Rule]
"""A rule, and the chain that it is appended to."""

Rules = Mapping[Chain, tuple[Rule, ...]]


@frozen
class Ruleset:
    """Everything that the firewall should hold, for both families; a missing chain is empty."""

    ipv4: Rules = field(default_factory=lambda: MappingProxyType({}))
    ipv6: Rules = field(default_factory=lambda: MappingProxyType({}))

    def of(self, family: Family) -> Rules:
        """Return the chains of `family`."""
        return self.ipv4 if family is Family.IPV4 else self.ipv6
