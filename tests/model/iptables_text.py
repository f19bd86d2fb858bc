"""The language of iptables-save, read into the model; a word it does not know is an error."""

import shlex
from collections.abc import Callable
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
    Packet,
    TextChain,
    TextRule,
)

PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "ipv6-icmp": ICMPV6}
POLICIES = {"ACCEPT": ACCEPT, "DROP": DROP}
REJECTIONS = {
    "tcp-reset": RESET,
    "icmp-admin-prohibited": PROHIBITED,
    "icmp6-adm-prohibited": PROHIBITED,
}


@cache
def read(text: str, family: Family) -> Firewall:
    """Return the chains of `family` as `text` says them."""
    policies: dict[str, str] = {}
    lines: dict[str, list[str]] = {}
    firewall: dict[tuple[Family, Chain], TextChain] = {}
    table = ""
    for line in text.splitlines():
        words = line.split()
        match words:
            case [word] if word.startswith("*"):
                table, policies, lines = word[1:], {}, {}
            case [name, policy, _] if name.startswith(":"):
                policies[name[1:]] = policy
                lines[name[1:]] = []
            case ["-A", name, *_]:
                lines[name].append(line)
            case ["COMMIT"]:
                chains = _chains(policies, lines)
                for chain in Chain:
                    if chain.table == table:
                        firewall[family, chain] = chains[chain.hook]
            case _:
                raise ValueError(line)
    return firewall


def _chains(policies: dict[str, str], lines: dict[str, list[str]]) -> dict[str, TextChain]:
    """Return the chains of a table; one that others jump to is listed after them."""
    chains: dict[str, TextChain] = {}
    for name in reversed(list(lines)):
        rules = (_rule(line, shlex.split(line)[2:], chains) for line in lines[name])
        policy = None if policies[name] == "-" else POLICIES[policies[name]]
        chains[name] = TextChain(policy, tuple(rules))
    return chains


def _rule(text: str, words: list[str], chains: dict[str, TextChain]) -> TextRule:
    left = iter(words)
    conditions: list[Condition] = []
    module = ""
    for word in left:
        if word == "-m":
            module = next(left)
        elif word == "-j":
            return TextRule(text, tuple(conditions), _effect(list(left), chains))
        elif word == "!":
            if [module, next(left), next(left)] != ["ipv6header", "--header", "protocol"]:
                raise ValueError(text)
            conditions.append(_has_extra_headers)
        elif word == "--tcp-flags":
            if [module, next(left), next(left)] != ["tcp", "SYN,ACK", "SYN"]:
                raise ValueError(text)
            conditions.append(_opens_a_connection)
        elif word == "--comment":
            next(left)
        else:
            conditions.append(
                _CONDITIONS[module if word.startswith("--") else "", word](next(left))
            )
    raise ValueError(f"no target: {text}")


def _effect(words: list[str], chains: dict[str, TextChain]) -> Effect:
    match words:
        case ["ACCEPT"]:
            return Effect(ACCEPT)
        case ["DROP"]:
            return Effect(DROP)
        case ["REJECT", "--reject-with", kind]:
            return Effect(REJECTIONS[kind])
        case ["MARK", "--set-xmark", value]:
            return Effect(mark=_whole_mark(value))
        case ["CONNMARK", "--set-xmark", value]:
            return Effect(connmark=_whole_mark(value))
        case [chain] if chain in chains:
            return Effect(jump=chains[chain])
    raise ValueError(words)


def _whole_mark(text: str) -> int:
    value, _, mask = text.partition("/")
    if int(mask, 16) != 0xFFFFFFFF:
        raise ValueError(text)
    return int(value, 16)


def _network(field: str) -> Callable[[str], Condition]:
    def condition(text: str) -> Condition:
        network = ip_network(text)
        return lambda packet: getattr(packet, field) in network

    return condition


def _ports(protocol: int, field: str) -> Callable[[str], Condition]:
    def condition(text: str) -> Condition:
        first, _, last = text.partition(":")
        allowed = range(int(first), int(last or first) + 1)
        return lambda packet: packet.has_ports(protocol) and getattr(packet, field) in allowed

    return condition


def _any_port(field: str) -> Callable[[str], Condition]:
    def condition(text: str) -> Condition:
        spans = [part.partition(":") for part in text.split(",")]
        assert sum(2 if to else 1 for _first, to, _last in spans) <= 15, text
        listed = {p for a, _, b in spans for p in range(int(a), int(b or a) + 1)}
        return lambda packet: (
            (packet.has_ports(TCP) or packet.has_ports(UDP)) and getattr(packet, field) in listed
        )

    return condition


def _equal(field: str, convert: Callable[[str], object]) -> Callable[[str], Condition]:
    return lambda text: lambda packet: getattr(packet, field) == convert(text)


def _has_extra_headers(packet: Packet) -> bool:
    return packet.extra_headers


def _opens_a_connection(packet: Packet) -> bool:
    return packet.has_ports(TCP) and packet.syn


def _header_length(text: str) -> Condition:
    if text != "0x0>>0x18&0xf=0x0:0x4,0x6:0xf":
        raise ValueError(text)
    return _has_extra_headers


def _hexadecimal(text: str) -> int:
    return int(text, 16)


_CONDITIONS: dict[tuple[str, str], Callable[[str], Condition]] = {
    ("", "-s"): _network("source"),
    ("", "-d"): _network("destination"),
    ("", "-i"): _equal("in_interface", str),
    ("", "-o"): _equal("out_interface", str),
    ("", "-p"): _equal("protocol", PROTOCOLS.__getitem__),
    ("tcp", "--sport"): _ports(TCP, "source_port"),
    ("tcp", "--dport"): _ports(TCP, "destination_port"),
    ("udp", "--sport"): _ports(UDP, "source_port"),
    ("udp", "--dport"): _ports(UDP, "destination_port"),
    ("multiport", "--sports"): _any_port("source_port"),
    ("multiport", "--dports"): _any_port("destination_port"),
    ("icmp", "--icmp-type"): lambda text: (
        lambda packet: packet.has_ports(ICMP) and packet.icmp_type == int(text)
    ),
    ("icmp6", "--icmpv6-type"): lambda text: (
        lambda packet: packet.has_ports(ICMPV6) and packet.icmp_type == int(text)
    ),
    ("u32", "--u32"): _header_length,
    ("owner", "--uid-owner"): _equal("user", int),
    ("mark", "--mark"): _equal("mark", _hexadecimal),
    ("connmark", "--mark"): lambda text: (
        lambda packet: packet.has_flow and packet.connmark == int(text, 16)
    ),
    ("conntrack", "--ctstate"): lambda text: lambda packet: packet.state in text.split(","),
    ("conntrack", "--ctdir"): lambda text: (
        lambda packet: packet.has_flow and packet.direction == text
    ),
}
"""What each option means, by the extension that it belongs to and its name."""
