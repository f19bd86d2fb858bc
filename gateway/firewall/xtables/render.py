"""Rules as iptables writes them: the words for python-iptables, and the text of iptables-save.

Pure. `matches_of` and `target_of` are the only translation of a `Rule` into iptables: the text
below and what `gateway.firewall.xtables.tables` puts into the kernel are both made of them.
"""

import re
from typing import assert_never

from gateway.firewall.xtables.chains import Line, Lines, chains_of
from gateway.model import Network
from gateway.model.frozen import frozen
from gateway.policy.rules import (
    Accept,
    Chain,
    Drop,
    Family,
    Networks,
    NetworkSet,
    Ports,
    PortSet,
    Reject,
    Rule,
    Ruleset,
    SetConnmark,
    SetMark,
    Transport,
    is_nameable,
)

TABLES = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
"""The tables that the gateway owns with their built-in chains, the closing one first."""

POLICIES = {"filter": "DROP", "mangle": "ACCEPT"}
"""What becomes of a packet at the end of a chain: mangle only marks, filter decides."""

PROTOCOL_NUMBERS = {
    Transport.TCP: 6,
    Transport.UDP: 17,
    Transport.ICMP: 1,
    Transport.ICMPV6: 58,
}

_PROHIBITED = {Family.IPV4: "icmp-admin-prohibited", Family.IPV6: "icmp6-adm-prohibited"}
_WHY = re.compile(r"[ !#-&(-\[\]-~]{1,128}")
_QUOTED = frozenset({"comment", "u32"})
_UNQUOTED = re.compile(r"[A-Za-z0-9_-]+")


@frozen
class Extension:
    """A match or target extension with its parameters, iptables-extensions(8)."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()
    inverted: bool = False

    def __str__(self) -> str:
        option = "! --" if self.inverted else "--"
        words = (f"{option}{key} {_word(key, value)}" for key, value in self.parameters)
        return " ".join((self.name, *words))


EXTRA_HEADERS = {
    Family.IPV4: Extension("u32", (("u32", "0x0>>0x18&0xf=0x0:0x4,0x6:0xf"),)),
    Family.IPV6: Extension("ipv6header", (("header", "protocol"),), inverted=True),
}
"""The matches for packets with options or extension headers.

The tables themselves have no field for it. For IPv4 the length of the header is compared: five
words without options. For IPv6 the headers must be the transport protocol's alone; connection
tracking has put fragments together before (net/ipv6/netfilter/ip6t_ipv6header.c).
"""


def matches_of(rule: Rule, family: Family) -> tuple[Extension, ...]:
    """Return the match extensions of `rule`, in the order in which iptables holds them.

    Raises ValueError for what iptables has no words for.
    """
    extensions = [EXTRA_HEADERS[family]] if rule.extra_headers else []
    if rule.user is not None:
        extensions.append(Extension("owner", (("uid-owner", str(rule.user)),)))
    if rule.source_ports is not None or rule.destination_ports is not None:
        extensions.append(_ports(rule))
    if rule.syn:
        extensions.append(_syn(rule))
    if rule.icmp_type is not None:
        extensions.append(_icmp_type(rule))
    if rule.mark is not None:
        extensions.append(Extension("mark", (("mark", f"{rule.mark:#x}"),)))
    if rule.connmark is not None:
        extensions.append(Extension("connmark", (("mark", f"{rule.connmark:#x}"),)))
    if rule.ct_states or rule.ct_direction is not None:
        extensions.append(_conntrack(rule))
    if rule.why:
        if not _WHY.fullmatch(rule.why):
            raise ValueError(f"not a comment for a rule: {rule.why!r}")
        extensions.append(Extension("comment", (("comment", rule.why),)))
    return tuple(extensions)


def target_of(rule: Rule, family: Family) -> Extension:
    """Return the target of `rule`. Marks are written with their mask: all 32 bits."""
    match rule.verdict:
        case Accept():
            return Extension("ACCEPT")
        case Drop():
            return Extension("DROP")
        case Reject(tcp_reset=True):
            return Extension("REJECT", (("reject-with", "tcp-reset"),))
        case Reject():
            return Extension("REJECT", (("reject-with", _PROHIBITED[family]),))
        case SetMark(value):
            return Extension("MARK", (("set-xmark", f"{value:#x}/0xffffffff"),))
        case SetConnmark(value):
            return Extension("CONNMARK", (("set-xmark", f"{value:#x}/0xffffffff"),))
        case _:
            assert_never(rule.verdict)


def interface_of(name: str) -> str:
    """Return `name` if it is one interface's; raises ValueError for a pattern ("eth+")."""
    if not is_nameable(name):
        raise ValueError(f"not the name of one interface: {name!r}")
    return name


def network_of(networks: Networks | None, family: Family) -> Network | None:
    """Return the network that a rule of `family` matches, None if it matches every address."""
    if networks is None:
        return None
    if isinstance(networks, NetworkSet):
        raise ValueError(f"not one network: {networks.name}")  # noqa: TRY004 - as for other rules
    if networks.version != family.value:
        raise ValueError(f"{networks} in a rule of the other family")
    return networks if networks.prefixlen else None


def render_line(name: str, line: Line, family: Family) -> str:
    """Return a line of the chain `name` as iptables-save writes it."""
    rule, words = line.rule, ["-A", name]
    for option, networks in (("-s", rule.source), ("-d", rule.destination)):
        if network := network_of(networks, family):
            words += [option, str(network)]
    for option, interface in (("-i", rule.in_interface), ("-o", rule.out_interface)):
        if interface is not None:
            words += [option, interface_of(interface)]
    if rule.protocol is not None:
        words += ["-p", rule.protocol.value]
    words += [f"-m {match}" for match in matches_of(rule, family)]
    words += ["-j", line.jump or str(target_of(rule, family))]
    return " ".join(words)


@frozen
class Kernel:
    """What the tables of a kernel can match, which others may lack: see `matches.py`.

    Without `has_our_users` the match `owner` is missing, too: the network belongs to other users.
    So it is without `has_ids`: no service can have a user of its own, and each says so itself.
    """

    extra_headers: bool = True
    owner: bool = True
    multiport: bool = True
    has_our_users: bool = True
    has_ids: bool = True


EVERYTHING = Kernel()


def table_of(ruleset: Ruleset, family: Family, table: str, kernel: Kernel = EVERYTHING) -> Lines:
    """Return the lines of every chain of `table` for `ruleset`.

    Rules on options and extension headers, or on a user, that the kernel cannot match are left out.
    """
    lines: Lines = dict.fromkeys(TABLES[table], ())
    for chain in Chain:
        if chain.table == table:
            rules = [
                rule
                for rule in ruleset.of(family).get(chain, ())
                if (kernel.extra_headers or not rule.extra_headers)
                and (kernel.owner or rule.user is None)
            ]
            lines |= chains_of(chain.hook, rules, multiport=kernel.multiport)
    return lines


def render(ruleset: Ruleset, family: Family, kernel: Kernel = EVERYTHING) -> str:
    """Return the tables of `family` as iptables-save writes them, without counters' values.

    The filter table comes first, because `iptables-restore` commits table by table: what closes
    is in force before the marks change.
    """
    text = []
    for table, hooks in TABLES.items():
        chains = table_of(ruleset, family, table, kernel)
        text.append(f"*{table}")
        text += [f":{hook} {POLICIES[table]} [0:0]" for hook in hooks]
        text += [f":{name} - [0:0]" for name in chains if name not in hooks]
        text += [render_line(name, line, family) for name in chains for line in chains[name]]
        text.append("COMMIT")
    return "\n".join(text) + "\n"


def commands(ruleset: Ruleset, family: Family, kernel: Kernel = EVERYTHING) -> list[str]:
    """Return the commands of iptables(8) that make the tables of `family` hold `ruleset`."""
    program = "iptables" if family is Family.IPV4 else "ip6tables"
    text = []
    for table, hooks in TABLES.items():
        command = f"{program} -t {table}"
        chains = table_of(ruleset, family, table, kernel)
        text += [f"{command} -P {hook} {POLICIES[table]}" for hook in hooks]
        text += [f"{command} -F", f"{command} -X"]
        text += [f"{command} -N {name}" for name in chains if name not in hooks]
        text += [
            f"{command} {render_line(name, line, family)}"
            for name in chains
            for line in chains[name]
        ]
    return text


def _ports(rule: Rule) -> Extension:
    if rule.protocol not in {Transport.TCP, Transport.UDP}:
        raise ValueError(f"ports need TCP or UDP: {rule}")
    named = (("sport", rule.source_ports), ("dport", rule.destination_ports))
    for name, ports in named:
        if isinstance(ports, PortSet):
            listed = ",".join(map(_range, ports.members))
            return Extension("multiport", ((f"{name}s", listed),))
    return Extension(
        rule.protocol.value,
        tuple((name, _range(ports)) for name, ports in named if isinstance(ports, Ports)),
    )


def _syn(rule: Rule) -> Extension:
    if rule.protocol is not Transport.TCP:
        raise ValueError(f"what opens a connection needs TCP: {rule}")
    return Extension("tcp", (("tcp-flags", "SYN,ACK SYN"),))


def _icmp_type(rule: Rule) -> Extension:
    match rule.protocol:
        case Transport.ICMP:
            return Extension("icmp", (("icmp-type", str(rule.icmp_type)),))
        case Transport.ICMPV6:
            return Extension("icmp6", (("icmpv6-type", str(rule.icmp_type)),))
        case _:
            raise ValueError(f"an ICMP type needs the protocol: {rule}")


def _range(ports: Ports) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}:{ports.last}"


def _conntrack(rule: Rule) -> Extension:
    parameters = []
    if rule.ct_states:
        states = ("INVALID", "NEW", "RELATED", "ESTABLISHED")  # the order of iptables-save
        parameters.append(("ctstate", ",".join(s for s in states if s in rule.ct_states)))
    if rule.ct_direction is not None:
        parameters.append(("ctdir", rule.ct_direction.value))
    return Extension("conntrack", tuple(parameters))


def _word(parameter: str, value: str) -> str:
    """Return a value as iptables-save writes it: texts in quotes unless one plain word."""
    if parameter not in _QUOTED or _UNQUOTED.fullmatch(value):
        return value
    return f'"{value}"'
