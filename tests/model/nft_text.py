"""The language of nft, as the gateway writes it, read into the model; else it is an error."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from ipaddress import ip_network

from gateway.policy.rules import Chain, Family
from tests.model.packets import (
    ACCEPT,
    DROP,
    ICMP,
    ICMPV6,
    PROHIBITED,
    RESET,
    TCP,
    UDP,
    Condition,
    Effect,
    Firewall,
    TextChain,
    TextRule,
)

PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "ipv6-icmp": ICMPV6}
FAMILIES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
CHAINS = {
    "type filter hook prerouting priority mangle; policy accept;": (Chain.PREROUTING, ACCEPT),
    "type filter hook input priority filter; policy drop;": (Chain.INPUT, DROP),
    "type filter hook forward priority filter; policy drop;": (Chain.FORWARD, DROP),
    "type route hook output priority mangle; policy accept;": (Chain.OUTPUT_MARK, ACCEPT),
    "type filter hook output priority filter; policy drop;": (Chain.OUTPUT, DROP),
    "type filter hook postrouting priority mangle; policy accept;": (Chain.POSTROUTING, ACCEPT),
}
"""Which hook a chain is at decides what it is; its name is for people."""


@cache
def read(text: str) -> Firewall:
    """Return the chains of both families as `text` says them."""
    firewall: dict[tuple[Family, Chain], TextChain] = {}
    sets = {name: elements.split(", ") for name, elements in _SET.findall(text)}
    at, policy, rules = Chain.INPUT, DROP, list[TextRule]()
    for line in map(str.strip, _SET.sub("", text).splitlines()):
        if line.startswith("type "):
            at, policy = CHAINS[line]
            rules = []
        elif line == "}":
            chain = TextChain(policy, tuple(rules))
            firewall |= dict.fromkeys(((family, at) for family in Family), chain)
        elif line and not line.endswith("{") and " inet portcullis" not in line:
            rules.append(_rule(line, sets))
    return firewall


_SET = re.compile(r"set (\w+) \{\s+type \w+\s+flags interval\s+elements = \{ (.*) \}\s+\}")


def _rule(text: str, sets: Mapping[str, list[str]]) -> TextRule:
    conditions: list[Condition] = []
    effect = Effect()
    left = text
    while left:
        phrase, meaning = next(
            (
                (
                    found,
                    make(
                        *(
                            sets.get((group or "").removeprefix("@"), group)
                            for group in found.groups()
                        )
                    ),
                )
                for p, make in PHRASES
                if (found := p.match(left))
            ),
            (None, None),
        )
        if phrase is None:
            raise ValueError(f"{left!r} in {text!r}")
        left = left[phrase.end() :].lstrip()
        if isinstance(meaning, Effect):
            effect = meaning
        elif meaning is not None:
            conditions.append(meaning)
    return TextRule(text, tuple(conditions), effect)


def _address(protocol: str, field: str, listed: str | list[str]) -> Condition:
    family = Family.IPV4 if protocol == "ip" else Family.IPV6
    networks = [ip_network(text) for text in ([listed] if isinstance(listed, str) else listed)]
    name = {"s": "source", "d": "destination"}[field]
    return lambda packet: (
        packet.family is family and any(getattr(packet, name) in it for it in networks)
    )


def _ports(protocol: str, field: str, listed: str | list[str]) -> Condition:
    spans = [text.partition("-") for text in ([listed] if isinstance(listed, str) else listed)]
    allowed = {p for a, _, b in spans for p in range(int(a), int(b or a) + 1)}
    name = {"s": "source_port", "d": "destination_port"}[field]
    return lambda packet: packet.has_ports(PROTOCOLS[protocol]) and getattr(packet, name) in allowed


def _icmp_type(version: str | None, text: str) -> Condition:
    family, protocol = (Family.IPV6, ICMPV6) if version else (Family.IPV4, ICMP)
    return lambda packet: (
        packet.family is family and packet.has_ports(protocol) and packet.icmp_type == int(text)
    )


def _interface(way: str, name: str) -> Condition:
    field = {"i": "in_interface", "o": "out_interface"}[way]
    return lambda packet: getattr(packet, field) == name


_MEANINGS: dict[str, Callable[..., Condition | Effect | None]] = {
    r"meta nfproto (ipv4|ipv6)\b": lambda name: lambda p: p.family is FAMILIES[name],
    r"meta l4proto (\S+)": lambda name: lambda p: p.protocol == PROTOCOLS[name],
    r"meta skuid (\d+)": lambda user: lambda p: p.user == int(user),
    r"meta mark set (0x\w+)": lambda mark: Effect(mark=int(mark, 16)),
    r"meta mark (0x\w+)": lambda mark: lambda p: p.mark == int(mark, 16),
    r"ct mark set (0x\w+)": lambda mark: Effect(connmark=int(mark, 16)),
    r"ct mark (0x\w+)": lambda mark: lambda p: p.has_flow and p.connmark == int(mark, 16),
    r"ct state (\S+)": lambda names: lambda p: p.state.lower() in names.split(","),
    r"ct direction (\w+)": lambda way: lambda p: p.has_flow and p.direction.lower() == way,
    r'(i|o)ifname "([^"]+)"': _interface,
    r"(ip6?) (s|d)addr (\S+)": _address,
    r"(tcp|udp) (s|d)port (\S+)": _ports,
    r"tcp flags & \(syn \| ack\) == syn\b": lambda: lambda p: p.has_ports(TCP) and p.syn,
    r"ip hdrlength != 5\b": lambda: lambda p: p.family is Family.IPV4 and p.extra_headers,
    r"ip6 nexthdr != (\d+)": lambda number: (
        lambda p: p.family is Family.IPV6 and (p.extra_headers or p.protocol != int(number))
    ),
    r"icmp(v6)? type (\d+)": _icmp_type,
    r"accept\b": lambda: Effect(ACCEPT),
    r"drop\b": lambda: Effect(DROP),
    r"reject with tcp reset\b": lambda: Effect(RESET),
    r"reject with icmp(?:v6)? admin-prohibited\b": lambda: Effect(PROHIBITED),
    r"counter\b": lambda: None,
    r'comment "[^"]*"': lambda: None,
}
PHRASES = [(re.compile(phrase), meaning) for phrase, meaning in _MEANINGS.items()]
"""Each phrase of the language with what it means for a packet, or what it does."""
