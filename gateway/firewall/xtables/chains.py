"""Rules that match sets, as chains of a legacy table, without another object of the kernel.

iptables has no sets of its own, and ipset keeps them outside the table, where they would have to be
changed, read back and compared apart from it. So a set is a tree of chains, in which a packet meets
few rules: each chain has at most `WIDTH`, and only one of them leads further down. Rules in a row
that match the same set share the tree. Their common conditions are on the way to it, so that no
other packet enters, and the other conditions are in one more chain, to which every leaf leads:

    OUTPUT          -o eth0                  -j OUTPUT-1         common conditions
    OUTPUT-1        -d 192.168.0.0/21        -j OUTPUT-1-1       a part of the set
    OUTPUT-1-1      -d 192.168.3.0/24        -j OUTPUT-1-rules   a member
    OUTPUT-1-rules  -s 172.18.0.2 -p tcp     -j ACCEPT           the rules, without the set

Pure.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from gateway.model import Network
from gateway.model.frozen import frozen
from gateway.policy.rules import (
    Accept,
    AnyPorts,
    Networks,
    NetworkSet,
    Ports,
    PortSet,
    Rule,
    Transport,
)

T = TypeVar("T")

WIDTH = 8
"""How many rules a chain of a tree has at most."""

SLOTS = 15
"""The numbers that one `multiport` match can hold; a range is two (linux/netfilter/xt_multiport.h,
XT_MULTI_PORTS)."""


@frozen
class Line:
    """What one line of a chain says: `rule`, or with `jump` that packets go to that chain instead.

    Only a jump may be without a reason, and so without a comment: it is one of many in a tree.
    """

    rule: Rule
    jump: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a rule without a reason."""
        if not self.rule.why and not self.jump:
            raise ValueError("a rule without a reason")


Lines = dict[str, tuple[Line, ...]]
"""The lines of each chain; a chain that is jumped to comes after the one that does."""


def chains_of(hook: str, rules: Sequence[Rule], *, multiport: bool = True) -> Lines:
    """Return the chain `hook` with `rules`, and the chains for the sets that they match.

    Without `multiport`, for kernels that lack that match, each range of ports has its own line.
    """
    chains: Lines = {hook: ()}
    lines: list[Line] = []
    number = 0
    for wanted, grouped in groupby(rules, _set_of):
        if wanted is None:
            lines += map(Line, grouped)
            continue
        number += 1
        field, matched = wanted[:2]
        alike = tuple(grouped)
        common = _common(alike, field)
        name, inner = f"{hook}-{number}", f"{hook}-{number}-rules"
        lines.append(Line(Rule(why=matched.why, verdict=Accept(), **common), name))
        tree = _Tree(name, inner, field, common.get("protocol"))
        chains |= _tree(tree, matched, multiport=multiport)
        chains[inner] = tuple(Line(_rest(rule, field, common)) for rule in alike)
    chains[hook] = tuple(lines)
    return chains


def _set_of(rule: Rule) -> tuple[Any, ...] | None:
    """Return the field of `rule` that is a set, the set, and what else must be equal in a tree."""
    found = [
        (field, matched, rule.in_interface, rule.out_interface)
        for field in ("source", "destination", "source_ports", "destination_ports")
        if isinstance(matched := getattr(rule, field), NetworkSet | PortSet)
    ]
    if len(found) > 1:
        raise ValueError(f"more than one set in a rule: {rule.why}")
    if not found:
        return None
    is_of_ports = isinstance(found[0][1], PortSet)
    return (*found[0], rule.protocol if is_of_ports else None)


def _common(rules: Sequence[Rule], but: str) -> dict[str, Any]:
    """Return the conditions that all `rules` have, except for the field `but`.

    A type of ICMP is left out, which is nothing without its protocol, and so are ports.
    """
    left_out = {"why", "verdict", "icmp_type", "source_ports", "destination_ports", but}
    return {
        field.name: value
        for field in fields(Rule)
        if field.name not in left_out
        and (value := getattr(rules[0], field.name)) != field.default
        and all(getattr(rule, field.name) == value for rule in rules)
    }


def _rest(rule: Rule, field: str, common: dict[str, Any]) -> Rule:
    """Return `rule` without its set and what was matched before, but with the protocol.

    Ports, types of ICMP and resets are nothing without it.
    """
    empty: dict[str, Any] = {
        name: frozenset() if name == "ct_states" else None for name in (*common, field)
    }
    if "extra_headers" in empty:
        raise ValueError(f"extra headers and a set in a rule: {rule.why}")
    empty["protocol"] = rule.protocol
    return replace(rule, **empty)


def _parts(members: Sequence[T], divide: Callable[[Sequence[T]], int]) -> list[Sequence[T]]:
    """Divide `members` into at most `WIDTH` parts, of one each if they are few enough."""
    if len(members) <= WIDTH:
        return [members[at : at + 1] for at in range(len(members))]
    parts = [members]
    while len(parts) < WIDTH and len(largest := max(parts, key=len)) > WIDTH:
        at, where = parts.index(largest), divide(largest)
        parts[at : at + 1] = [largest[:where], largest[where:]]
    return parts


@frozen
class _Tree:
    """The chains that lead what is in a set, by `field`, from the chain `root` to `inner`."""

    root: str
    inner: str
    field: str
    protocol: Transport | None

    def branch(
        self,
        members: Sequence[T],
        divide: Callable[[Sequence[T]], int],
        whole: Callable[[Sequence[T]], Networks | AnyPorts],
    ) -> Lines:
        """Return the chains for `members`.

        `divide` says how many go into the first part of two, `whole` what matches all of a part.
        """
        chains: Lines = {}
        left = [(self.root, members)]
        for name, part in left:
            lines = []
            for smaller in _parts(part, divide):
                target = self.inner
                if len(smaller) > 1:
                    target = f"{self.root}-{len(left)}"
                    left.append((target, smaller))
                lines.append(self._line(whole(smaller), target))
            chains[name] = tuple(lines)
        return chains

    def _line(self, matched: Networks | AnyPorts, target: str) -> Line:
        wanted: dict[str, Any] = {self.field: matched}
        return Line(Rule(why="", verdict=Accept(), protocol=self.protocol, **wanted), target)


@lru_cache(maxsize=16)
def _tree(tree: _Tree, matched: NetworkSet | PortSet, *, multiport: bool) -> Lines:
    """Return the chains of `tree` for `matched`; they stay the same for many rulesets."""
    if isinstance(matched, NetworkSet):
        spans = tuple(map(_Span.of, matched.members))
        return tree.branch(spans, _first_half, _cover)
    return tree.branch(rows(matched, multiport=multiport), lambda parts: len(parts) // 2, _range)


class _Span(NamedTuple):
    """A network with its first and last address as numbers."""

    first: int
    last: int
    network: Network

    @classmethod
    def of(cls, network: Network) -> "_Span":
        """Return the span of `network`."""
        first = int(network.network_address)
        return cls(first, first | int(network.hostmask), network)


def _different(spans: Sequence[_Span]) -> int:
    """Return how many of the last bits of addresses in `spans`, which are sorted, differ."""
    return (spans[0].first ^ spans[-1].last).bit_length()


def _cover(spans: Sequence[_Span]) -> Network:
    """Return the smallest network that contains all of `spans`."""
    network, different = spans[0].network, _different(spans)
    if len(spans) == 1:
        return network
    where = spans[0].first >> different << different
    return type(network)((where, network.max_prefixlen - different))


def _first_half(spans: Sequence[_Span]) -> int:
    """Return how many of `spans`, at least two, are in the first half of what covers them."""
    half = _different(spans) - 1
    return bisect_left(spans, spans[-1].first >> half << half, key=lambda span: span.first)


def rows(ports: PortSet, *, multiport: bool) -> tuple[AnyPorts, ...]:
    """Return `ports` in parts that one line can match each."""
    parts: list[tuple[Ports, ...]] = []
    free = 0
    for part in ports.members:
        needed = 1 if part.first == part.last else 2
        if multiport and needed <= free:
            parts[-1] = (*parts[-1], part)
            free -= needed
        else:
            parts.append((part,))
            free = SLOTS - needed
    return tuple(
        PortSet(ports.name, ports.why, held) if len(held) > 1 else held[0] for held in parts
    )


def _range(parts: Sequence[AnyPorts]) -> AnyPorts:
    """Return the range from the first port of `parts` to the last, or the only part."""
    if len(parts) == 1:
        return parts[0]
    first, last = (p.members if isinstance(p, PortSet) else (p,) for p in (parts[0], parts[-1]))
    return Ports(first[0].first, last[-1].last)
