"""What may leave an uplink below the firewall: the egress guard as a value.

Frames from packet sockets never meet the firewall's rules. The guard sees every frame that leaves a
device, so it drops what did not pass the firewall first. It cannot ask connection tracking, so the
firewall leaves a sign: its last chain gives every packet that passed and leaves through an uplink a
random mark. Nothing without CAP_NET_ADMIN should know that mark. The guard accepts a packet that
has the mark and matches one of the firewall's own accepting rules.

ARP has no such sign. It passes while IPv4 has any business on the uplink, from one of the uplink's
own addresses, about its network or a gateway. The tunnel's address never appears in it.
"""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network

from gateway.model.frozen import frozen
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.rules import Accept, Chain, Family, Rule, Ruleset


@frozen
class DeviceGuard:
    """What passes the egress hook of `device`: `rules` with the mark, `arp` by sender, target."""

    device: str
    rules: tuple[tuple[Family, Rule], ...] = ()
    arp: tuple[tuple[IPv4Address, IPv4Network], ...] = ()


@frozen
class GuardRules:
    """Everything the guard should hold: the `mark` of packets that passed, and each device.

    `routed` says whether packets must have been routed too, which not every kernel can check.
    """

    mark: int
    devices: tuple[DeviceGuard, ...] = ()
    routed: bool = False


def guard_for(ruleset: Ruleset, facts: Facts) -> GuardRules:
    """Return the guard that goes with `ruleset` in a namespace like `facts`.

    The accepting rules of OUTPUT and FORWARD are reduced to what the egress hook can see: the
    packet's own headers. Refusing rules are left out: what they matched has no mark. Nothing passes
    on the links that are down, so that none is without a guard at the moment it is set up.

    Raises ValueError when the facts have no mark, or 0, which is the mark of every packet: facts
    that were never read must not replace a guard.
    """
    mark = facts.guard_mark
    if mark is None or not 0 < mark < 1 << 32:
        raise ValueError("the guard needs a mark from 1 to 2^32 - 1")
    guarded = tuple(_device_guard(ruleset, uplink, facts.routes) for uplink in facts.uplinks)
    return GuardRules(mark, (*guarded, *map(DeviceGuard, facts.down)))


def _device_guard(ruleset: Ruleset, uplink: Uplink, routes: tuple[Route, ...]) -> DeviceGuard:
    leaving = [
        (family, reduced)
        for family in Family
        for chain, seen in ((Chain.OUTPUT, _as_it_is), (Chain.FORWARD, _translated))
        for rule in ruleset.of(family).get(chain, ())
        if isinstance(rule.verdict, Accept) and rule.out_interface in {None, uplink.name}
        for reduced in seen(_reduced(rule), family, uplink)
    ]
    rules = tuple(dict.fromkeys(leaving))
    has_ipv4 = any(family is Family.IPV4 for family, _ in rules)
    return DeviceGuard(uplink.name, rules, _arp(uplink, routes) if has_ipv4 else ())


def _reduced(rule: Rule) -> Rule:
    """Return `rule` without what the egress hook cannot see; the mark replaces that."""
    return replace(
        rule,
        out_interface=None,
        mark=None,
        connmark=None,
        ct_states=frozenset(),
        ct_direction=None,
    )


def _as_it_is(rule: Rule, family: Family, uplink: Uplink) -> list[Rule]:
    del family, uplink
    return [rule]


def _translated(rule: Rule, family: Family, uplink: Uplink) -> list[Rule]:
    """Return `rule` for forwarded packets as the egress hook sees them: from the uplink's address.

    See `gateway.policy.translation.Translation`.
    """
    own = [ip_network(address.ip) for address in uplink.addresses if family.has(address)]
    return [replace(rule, in_interface=None, source=address) for address in own]


def _arp(uplink: Uplink, routes: tuple[Route, ...]) -> tuple[tuple[IPv4Address, IPv4Network], ...]:
    """Return which addresses of `uplink` may ask for which targets.

    `routes` name the gateways that may be asked for although they are in none of its networks.
    """
    own = [address for address in uplink.addresses if isinstance(address, IPv4Interface)]
    gateways = [
        IPv4Network(route.gateway)
        for route in routes
        if route.interface == uplink.name and isinstance(route.gateway, IPv4Address)
    ]
    outside = [g for g in gateways if not any(g.subnet_of(address.network) for address in own)]
    return tuple(
        dict.fromkeys(
            (address.ip, target) for address in own for target in (address.network, *outside)
        )
    )
