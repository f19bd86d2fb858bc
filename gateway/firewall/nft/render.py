"""A ruleset in the words of nft(8): one table for both families, as an operator would type it.

Every rule names its family (`meta nfproto`), so the rules of both families stand in one chain
without touching each other. Refusing rules carry a counter, as every iptables rule does.
"""

import re
from collections.abc import Iterable, Iterator

from gateway.errors import FirewallError
from gateway.policy.rules import (
    ICMP_OF,
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
    Verdict,
    is_nameable,
)

TABLE = "inet portcullis"
"""Family and name of the table that holds the whole ruleset."""

CHAINS = {
    Chain.PREROUTING: ("prerouting", "filter hook prerouting priority mangle; policy accept;"),
    Chain.INPUT: ("input", "filter hook input priority filter; policy drop;"),
    Chain.FORWARD: ("forward", "filter hook forward priority filter; policy drop;"),
    Chain.OUTPUT_MARK: ("output_mark", "route hook output priority mangle; policy accept;"),
    Chain.OUTPUT: ("output", "filter hook output priority filter; policy drop;"),
    Chain.POSTROUTING: ("postrouting", "filter hook postrouting priority mangle; policy accept;"),
}
"""Name, type, hook, priority and policy of each chain.

Priority mangle (-150) comes after connection tracking (-200) and before filter (0), as in
iptables; type route makes the kernel look up the route again when the mark has changed.
"""

REST = 'drop comment "the rest"'
"""What ends every filter chain. The policy says the same, but not from the first moment: a new
chain accepts until the transaction that made it gives it its policy, some microseconds after its
rules (net/netfilter/nf_tables_api.c, nf_tables_commit, nft_chain_commit_drop_policy)."""


def render(ruleset: Ruleset) -> str:
    """Return what `nft -f` puts into force for `ruleset`, in one transaction.

    Raises FirewallError for a name or reason that nft's language cannot carry.
    """
    return transaction(TABLE, render_chains(ruleset))


def transaction(table: str, body: str) -> str:
    """Return the text that fills `table` with `body` instead of the rules that it holds.

    Sets of the same names and types are made again, so that they have no other elements. Its chains
    stay on their hooks and change their rules. To delete and make them again in one
    transaction can let packets out: a chain that is taken off its hook accepts what is on its way
    there (net/netfilter/core.c, nf_remove_net_hook), and such a packet never meets the new one.
    The `add` makes the table if there is none, and wakes up a dormant one.
    """
    made_again = "".join(
        f"add set {table} {name} {{ type {kind}; flags interval; }}\ndelete set {table} {name}\n"
        for name, kind in _SET.findall(body)
    )
    return f"add table {table}\nflush table {table}\n{made_again}{block(table, body)}"


def replacement(table: str, body: str) -> str:
    """Return the text that puts `table` with `body` in place of any former table of that name."""
    return f"add table {table}\ndelete table {table}\n{block(table, body)}"


def block(table: str, body: str) -> str:
    """Return `body` between the braces of `table`."""
    return f"table {table} {{\n{body}}}\n"


def render_chains(ruleset: Ruleset) -> str:
    """Return the sets and chains of `ruleset`: what is between the braces of the table."""
    ours = (
        (family, rule)
        for family in Family
        for rules in ruleset.of(family).values()
        for rule in rules
    )
    chains = (
        render_chain(
            name,
            head,
            (
                *(
                    render_rule(rule, family)
                    for family in Family
                    for rule in ruleset.of(family).get(chain, ())
                ),
                *((REST,) if chain.table == "filter" else ()),
            ),
        )
        for chain, (name, head) in CHAINS.items()
    )
    return "\n".join((*render_sets(ours), *chains))


def render_sets(rules: Iterable[tuple[Family, Rule]]) -> tuple[str, ...]:
    """Return the text of each set that one of `rules` matches."""
    found = {
        _set_name(matched, family): matched
        for family, rule in rules
        for matched in (
            rule.source,
            rule.destination,
            rule.source_ports,
            rule.destination_ports,
        )
        if isinstance(matched, NetworkSet | PortSet)
    }
    return tuple(_set(name, matched) for name, matched in found.items())


def render_chain(name: str, head: str, rules: tuple[str, ...]) -> str:
    """Return the base chain `name` with what follows the word `type`, and with its rules."""
    lines = "".join(f"\t\t{line}\n" for line in (f"type {head}", *rules))
    return f"\tchain {name} {{\n{lines}\t}}\n"


def render_rule(rule: Rule, family: Family, action: str = "") -> str:
    """Return one line: what `rule` matches in `family`, `action` or its verdict, and its reason."""
    words = (
        f"meta nfproto {_NFPROTO[family]}",
        *_interfaces(rule),
        *(() if rule.user is None else (f"meta skuid {rule.user}",)),
        *(EXTRA_HEADERS[family] if rule.extra_headers else ()),
        *render_headers(rule, family),
        *_tracking(rule),
        *(() if rule.mark is None else (f"meta mark {rule.mark:#x}",)),
        *render_members(rule, family),
        action or _verdict(rule.verdict, family),
        f"comment {quoted(rule.why)}",
    )
    return " ".join(words)


def render_headers(rule: Rule, family: Family) -> tuple[str, ...]:
    """Return what `rule` matches in the packet itself, sets left out: addresses, protocol, ports.

    Raises FirewallError for what nft has no words for.
    """
    return (
        *_address(rule.source, "saddr", family),
        *_address(rule.destination, "daddr", family),
        *_protocol(rule, family),
    )


def render_members(rule: Rule, family: Family) -> tuple[str, ...]:
    """Return what `rule` matches in sets: last, because a look-up costs more than all before it."""
    addresses = {"saddr": rule.source, "daddr": rule.destination}
    ports = {"sport": rule.source_ports, "dport": rule.destination_ports}
    return (
        *(
            f"{_IP[family]} {field} @{_set_name(matched, family)}"
            for field, matched in addresses.items()
            if isinstance(matched, NetworkSet)
        ),
        *(
            f"{rule.protocol} {field} @{_set_name(matched, family)}"
            for field, matched in ports.items()
            if isinstance(matched, PortSet)
        ),
    )


def quoted(text: str) -> str:
    """Return `text` as a string of nft's language, which has no escape for its quotes.

    Raises FirewallError when `text` would not stand for itself, or is too long for a comment.
    """
    if not _TEXT.fullmatch(text):
        raise FirewallError("not a comment for nftables", repr(text))
    return f'"{text}"'


def device(name: str) -> str:
    """Return the interface `name` as a string that matches nothing else: `eth*` is a pattern.

    Raises FirewallError for such a name.
    """
    if not is_nameable(name):
        raise FirewallError("not the name of one interface", repr(name))
    return f'"{name}"'


EXTRA_HEADERS = {
    Family.IPV4: ("ip hdrlength != 5",),
    Family.IPV6: ("ip6 nexthdr != 6", "ip6 nexthdr != 17", "ip6 nexthdr != 58"),
}
"""What packets with options or extension headers match.

A set of protocols would read better, but the kernel has other names for it than nft.
"""

_TEXT = re.compile(r"[ !#-~]{1,128}")
_SET = re.compile(r"^\tset (\S+) \{\n\t\ttype (\S+)$", re.MULTILINE)
_SET_NAME = re.compile(r"[a-z][a-z0-9_]{1,30}")
_NFPROTO = {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}
_IP = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_ICMP = {Family.IPV4: "icmp", Family.IPV6: "icmpv6"}


def _interfaces(rule: Rule) -> Iterator[str]:
    if rule.in_interface is not None:
        yield f"iifname {device(rule.in_interface)}"
    if rule.out_interface is not None:
        yield f"oifname {device(rule.out_interface)}"


def _set_name(matched: NetworkSet | PortSet, family: Family) -> str:
    """Return the name of a set in the table, where both families' networks are."""
    name = f"{matched.name}{family.value}" if isinstance(matched, NetworkSet) else matched.name
    if not _SET_NAME.fullmatch(name):
        raise FirewallError("not the name of a set", repr(name))
    return name


def _set(name: str, matched: NetworkSet | PortSet) -> str:
    if isinstance(matched, PortSet):
        kind, elements = "inet_service", [_ports(ports) for ports in matched.members]
    else:
        kind = f"ipv{matched.members[0].version}_addr"
        elements = [str(network) for network in matched.members]
    lines = (f"type {kind}", "flags interval", f"elements = {{ {', '.join(elements)} }}")
    return f"\tset {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _address(networks: Networks | None, field: str, family: Family) -> Iterator[str]:
    if networks is None:
        return
    first = networks.members[0] if isinstance(networks, NetworkSet) else networks
    if first.version != family.value:
        raise FirewallError("an address of the other family in a rule", str(first))
    if not isinstance(networks, NetworkSet) and networks.prefixlen:
        yield f"{_IP[family]} {field} {networks}"


def _protocol(rule: Rule, family: Family) -> Iterator[str]:
    ports = {"sport": rule.source_ports, "dport": rule.destination_ports}
    if any(ports.values()) and rule.protocol not in {Transport.TCP, Transport.UDP}:
        raise FirewallError("ports need TCP or UDP", rule.why)
    if rule.syn and rule.protocol is not Transport.TCP:
        raise FirewallError("what opens a connection needs TCP", rule.why)
    single = {name: p for name, p in ports.items() if isinstance(p, Ports)}
    if rule.icmp_type is not None:
        if rule.protocol is not ICMP_OF[family]:
            raise FirewallError("an ICMP type needs the protocol of the family", rule.why)
        yield f"{_ICMP[family]} type {rule.icmp_type}"
    elif single:
        yield from (f"{rule.protocol} {name} {_ports(p)}" for name, p in single.items())
    elif rule.protocol is not None and not rule.syn:
        yield f"meta l4proto {rule.protocol}"
    if rule.syn:
        yield "tcp flags & (syn | ack) == syn"


def _ports(ports: Ports) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _tracking(rule: Rule) -> Iterator[str]:
    if rule.ct_states:
        yield f"ct state {','.join(sorted(state.lower() for state in rule.ct_states))}"
    if rule.ct_direction is not None:
        yield f"ct direction {rule.ct_direction.lower()}"
    if rule.connmark is not None:
        yield f"ct mark {rule.connmark:#x}"


def _verdict(verdict: Verdict, family: Family) -> str:
    match verdict:
        case Accept():
            return "accept"
        case Drop():
            return "counter drop"
        case Reject(tcp_reset=True):
            return "counter reject with tcp reset"
        case Reject():
            return f"counter reject with {_ICMP[family]} admin-prohibited"
        case SetMark(value):
            return f"meta mark set {value:#x}"
        case SetConnmark(value):
            return f"ct mark set {value:#x}"
