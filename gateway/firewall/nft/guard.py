"""The egress guard in the kernel: `GuardRules` of the policy as one chain for each device.

Frames from packet sockets never meet iptables or the `inet` hooks; they do meet the egress hook of
the device (Linux 5.16), with PACKET_QDISC_BYPASS too. The hook accepts a packet that has the mark
and matches a rule, and removes the mark: behind this hook, a packet socket that listens can filter
by it (SKF_AD_MARK, linux/filter.h).

Knowing the mark does not help, because the kernel's own packets have been routed and frames of a
packet socket have not. The hook can check that on every kernel with realms. And a workload can
learn the mark: multicast and broadcast are looped back to their sender after the chain that sets
it, and a group of packet sockets may choose among its members by it (PACKET_FANOUT_CBPF).

ARP passes only as the kernel itself sends it: a request or a reply of 42 bytes, and a request
leaves the hardware address that it asks for empty.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from gateway.errors import MissingError
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import (
    EXTRA_HEADERS,
    device,
    quoted,
    render_chain,
    render_headers,
    render_members,
    render_sets,
    transaction,
)
from gateway.firewall.nft.table import HeldTable
from gateway.policy.flows import EXTRA_HEADERS as EXTRA_HEADERS_WHY
from gateway.policy.flows import NEIGHBOUR_DISCOVERY
from gateway.policy.guard import DeviceGuard, GuardRules
from gateway.policy.limits import DROP_NET_RAW
from gateway.policy.rules import Family, Rule, Transport
from gateway.system.changes import Changes
from gateway.system.watch import RTMGRP_LINK

TABLE = "netdev portcullis_guard"
"""Family and name of the guard's table."""

FUTURE_UPLINKS = tuple(f"eth{number}" for number in range(10))
"""The names under which interfaces appear later in a container (Docker and Podman count up)."""

REFUSED = "never passed the firewall"
"""The comment of the counter of frames that the guard dropped, in each device's chain."""

COUNTED_AS = ("any", "guard")
"""Family and direction of those frames, as `Firewall.refused` has them."""

ARP_LENGTH = 42
"""Bytes of an ARP frame for IPv4 on Ethernet, as the kernel makes it (RFC 826)."""


NEIGHBOUR_LENGTH = 86
"""Bytes of the longest frame of neighbour discovery that the kernel sends: one link-layer address
or nonce after the fixed part (RFC 4861, section 4.3 and 4.4)."""


ROUTED = "meta rtclassid != 0xffffffff"
"""Matches every packet that has been routed, and no other: the realm of the route is read, and
without a route there is none to compare (net/netfilter/nft_meta.c, NFT_META_RTCLASSID; it takes
IP_ROUTE_CLASSID in the kernel). No route has this realm."""


def render_devices(rules: GuardRules) -> str:
    """Return one chain for each device, and the sets: the text between the braces of the table."""
    sets = render_sets(pair for guarded in rules.devices for pair in guarded.rules)
    chains = (
        render_chain(
            f"egress-{guarded.device.translate(_IN_CHAIN_NAME)}",
            f"filter hook egress device {device(guarded.device)} priority filter; policy drop;",
            (
                *(line for pair in guarded.arp for line in _arp_rules(*pair)),
                *_plain({family for family, _ in guarded.rules}),
                *dict.fromkeys(
                    line for family, rule in guarded.rules for line in _marked(rule, family, rules)
                ),
                # Not left to the policy, which a new chain has late: see render.REST.
                f"counter drop comment {quoted(REFUSED)}",
            ),
        )
        for guarded in rules.devices
    )
    return "\n".join((*sets, *chains))


class Guard:
    """The table `netdev portcullis_guard`; the only writer of it.

    When a device goes, the kernel removes its chain (before Linux 6.16), or attaches it again when
    a device of that name appears. Where it does the latter, the names that Docker gives
    are guarded in advance, so that an interface that appears later is closed from its first frame
    for packet sockets too.
    """

    def __init__(self, nft: Nft, *, in_advance: bool, routed: bool) -> None:
        self._table = HeldTable(TABLE, nft)
        # A chain goes before the notice that its device has (net/core/dev.c, unregister_netdevice).
        self._links = Changes(nft.netns, groups=RTMGRP_LINK, fresh_for=math.inf)
        self._rendered: tuple[GuardRules, str] | None = None
        self.in_advance = in_advance
        self.routed = routed

    @classmethod
    def find(cls, nft: Nft | None = None) -> "Guard":
        """Return the guard of this kernel; its features are tried without loading anything.

        Raises MissingError if the kernel has no egress hook, or if CAP_NET_ADMIN is missing: the
        kernel does not answer without it.
        """
        nft = nft or Nft()
        has_nftables = nft.is_in_kernel()
        if has_nftables and nft.accepts(_trial(_NO_DEVICE, ROUTED)):
            return cls(nft, in_advance=True, routed=True)
        in_advance = has_nftables and nft.accepts(_trial(_NO_DEVICE))
        if not in_advance and not (has_nftables and nft.accepts(_trial("lo"))):
            raise MissingError(
                "the kernel has no egress hook (Linux 5.16, NETFILTER_EGRESS)", DROP_NET_RAW
            )
        return cls(nft, in_advance=in_advance, routed=nft.accepts(_trial("lo", ROUTED)))

    def apply(self, rules: GuardRules) -> None:
        """Put `rules` into force in place of the former ones, in one step, and read them back.

        Raises FirewallError; the former guard is in force then, or the new one. A device that has
        gone meanwhile is such an error: look at the uplinks again.
        """
        self._links.happened()  # what has changed until now is seen when the table is read back
        self._table.put(self._body(rules))

    def verify(self, rules: GuardRules) -> tuple[str, ...]:
        """Compare the kernel with `rules`: one line for each difference.

        A chain goes with its device, which does not count as a change of its table. So the table
        is read again after any change of a link. Raises FirewallError when it cannot be read.
        """
        if self._links.happened():
            self._table.forget()
        return self._table.differences(self._body(rules))

    def refused(self) -> dict[tuple[str, str], int]:
        """Return how many frames were dropped since the last `apply`, on all devices.

        They may be of any family, or of none, and have no direction but the guard's own. Raises
        FirewallError when the kernel cannot be read.
        """
        return {COUNTED_AS: sum(self._table.refused().values())}

    def _body(self, rules: GuardRules) -> str:
        """Return the text of `rules`; the last one is remembered, since it is compared often."""
        if self._rendered is None or self._rendered[0] is not rules:
            self._rendered = rules, render_devices(self._complete(rules))
        return self._rendered[1]

    def _complete(self, rules: GuardRules) -> GuardRules:
        """Return `rules` with all that the kernel can: routes asked for, future devices guarded."""
        rules = replace(rules, routed=self.routed)
        if not self.in_advance:
            return rules
        known = {guarded.device for guarded in rules.devices}
        future = (DeviceGuard(name) for name in FUTURE_UPLINKS if name not in known)
        return replace(rules, devices=(*rules.devices, *future))


_IN_CHAIN_NAME = str.maketrans({"@": "/a"})  # no device has a slash in its name
_NO_DEVICE = "portcullis-none"
LATER_FRAGMENT = {
    Family.IPV4: "ip frag-off & 0x1fff != 0",
    Family.IPV6: "frag frag-off != 0",
}
"""What every fragment of a packet but the first one matches."""

_PROTOCOL = {Family.IPV4: "ip", Family.IPV6: "ip6"}

_EXTRA_HEADERS: dict[Family, tuple[tuple[str, ...], ...]] = {
    Family.IPV4: (EXTRA_HEADERS[Family.IPV4],),
    Family.IPV6: (
        (*EXTRA_HEADERS[Family.IPV6], "ip6 nexthdr != 44"),
        ("ip6 nexthdr 44", "frag nexthdr != 6", "frag nexthdr != 17", "frag nexthdr != 58"),
    ),
}
"""What packets with options or extension headers match here, where IPv6 has been fragmented."""


def _trial(name: str, *rules: str) -> str:
    """Return a transaction with `rules` for the egress hook of the device `name`; never loaded."""
    head = f"filter hook egress device {device(name)} priority filter; policy accept;"
    return transaction(f"{TABLE}_trial", render_chain("egress", head, rules))


def _plain(families: Collection[Family]) -> Iterator[str]:
    """Yield what drops options and extension headers, which no rule of the firewall accepts."""
    for family in sorted(families, key=lambda family: family.value):
        for words in _EXTRA_HEADERS[family]:
            yield " ".join(
                (
                    f"meta protocol {_PROTOCOL[family]}",
                    *words,
                    f"counter drop comment {quoted(EXTRA_HEADERS_WHY)}",
                )
            )


def _marked(rule: Rule, family: Family, rules: GuardRules) -> Iterator[str]:
    """Yield the rules for what has passed the firewall by `rule`.

    The later fragments of a packet have no ports and no ICMP type: those are left to the firewall,
    where it is certain that it was asked.
    """
    yield _accepting(rule, family, rules)
    in_first = rule.source_ports or rule.destination_ports or rule.icmp_type is not None
    if rules.routed and in_first and not _is_discovery(rule):
        portless = replace(rule, source_ports=None, destination_ports=None, icmp_type=None)
        yield _accepting(portless, family, rules, LATER_FRAGMENT[family])


def _accepting(rule: Rule, family: Family, rules: GuardRules, *also: str) -> str:
    words = (
        f"meta mark {rules.mark:#x}",
        *((ROUTED,) if rules.routed else ()),
        f"meta protocol {_PROTOCOL[family]}",
        *render_headers(rule, family),
        *also,
        *(("meta length", f"<= {NEIGHBOUR_LENGTH}") if _is_discovery(rule) else ()),
        *render_members(rule, family),
        "meta mark set 0x0",
        "accept",
        f"comment {quoted(rule.why)}",
    )
    return " ".join(words)


def _is_discovery(rule: Rule) -> bool:
    return rule.protocol is Transport.ICMPV6 and rule.icmp_type in NEIGHBOUR_DISCOVERY


_ARP_OPERATIONS = ("1 arp daddr ether 00:00:00:00:00:00", "2")
"""Request and reply. The kernel knows no target hardware address when it asks, nor puts one in when
it asks a neighbour that it knows whether it is still there (net/ipv4/arp.c, arp_solicit)."""


def _arp_rules(source: IPv4Address, target: IPv4Network) -> Iterator[str]:
    """Yield the rules for ARP from `source` about `target`.

    The type in the frame is matched as well as the socket buffer's, because a packet socket sets
    them apart; raw (`@ll`), because `ether type` asks for the device's type first, which there
    is not at this hook. That the sender's hardware address is the link's own cannot be asked: it
    would have to be known, and read again whenever it changes.
    """
    for operation in _ARP_OPERATIONS:
        yield (
            "meta protocol arp @ll,96,16 0x0806 arp htype 1 arp ptype ip arp hlen 6 arp plen 4"
            f" arp operation {operation} arp saddr ip {source} arp daddr ip {target}"
            f" meta length {ARP_LENGTH} accept comment {quoted('ARP as the kernel sends it')}"
        )
