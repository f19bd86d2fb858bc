"""The lines of a tree as the bytes that libiptc takes, made without the library.

A set can have thousands of them, and the library needs 0.5 ms for each. They have no extension
but one for ports. Pure; see `entry` for the layout.
"""

import struct

from gateway.firewall.xtables.chains import Line
from gateway.firewall.xtables.entry import (
    ENTRY_SIZE,
    EXTENSION,
    HEADER_SIZE,
    OFFSETS,
)
from gateway.firewall.xtables.render import PROTOCOL_NUMBERS, network_of
from gateway.model import Network
from gateway.policy.rules import AnyPorts, Family, Ports, Transport

MULTIPORT = ("multiport", 1)
"""The match for several ports, and its revision."""

_MULTIPORT = struct.Struct("=BB15H15sB")
"""struct xt_multiport_v1 (linux/netfilter/xt_multiport.h): which ports, how many slots, the slots,
which of them begin a range, whether inverted."""

_SOURCE, _DESTINATION = 0, 1
"""enum xt_multiport_flags."""

_RANGES = {Transport.TCP: struct.Struct("=HHHH8x"), Transport.UDP: struct.Struct("=HHHH8x")}
"""The first fields of struct xt_tcp and xt_udp (linux/netfilter/xt_tcpudp.h), as long as they are
with the padding: source from, to; destination from, to. The others mean nothing when they are 0."""

_ANY = Ports(0, 0xFFFF)

_STANDARD = struct.Struct("=H29sBi4x")
"""struct xt_standard_target: its size, a chain's name in the place of its own, a verdict."""

_ADDRESS = {Family.IPV4: 4, Family.IPV6: 16}
_PROTOCOL = {Family.IPV4: struct.Struct("=HBB"), Family.IPV6: struct.Struct("=HBBB")}
"""The end of struct ipt_ip (protocol, flags, inverted) and ip6t_ip6 (with tos before the flags)."""

_PROTOCOL_OFFSET = {Family.IPV4: 80, Family.IPV6: 128}
_HAS_PROTOCOL = 1
"""IP6T_F_PROTO (linux/netfilter_ipv6/ip6_tables.h)."""


def pack(line: Line, family: Family) -> bytes:
    """Return the entry of `line`, a jump that matches addresses, a protocol or ports, no more."""
    rule = line.rule
    header = bytearray(ENTRY_SIZE[family])
    for place, networks in enumerate((rule.source, rule.destination)):
        if network := network_of(networks, family):
            _put_network(header, place, network, _ADDRESS[family])
    if rule.protocol is not None:
        number, at = PROTOCOL_NUMBERS[rule.protocol], _PROTOCOL_OFFSET[family]
        rest = (0, 0) if family is Family.IPV4 else (0, _HAS_PROTOCOL, 0)
        _PROTOCOL[family].pack_into(header, at, number, *rest)
    ports = b""
    for which, matched in ((_SOURCE, rule.source_ports), (_DESTINATION, rule.destination_ports)):
        if matched is not None and rule.protocol is not None:
            ports = _ports(rule.protocol, which, matched)
    target = len(header) + len(ports)
    OFFSETS.pack_into(header, HEADER_SIZE[family] + 4, target, target + _STANDARD.size)
    jump = _STANDARD.pack(_STANDARD.size, line.jump.encode(), 0, 0)
    return bytes(header) + ports + jump


def _put_network(header: bytearray, place: int, network: Network, size: int) -> None:
    """Write the address and the mask: source, destination, then the masks of both."""
    header[place * size : (place + 1) * size] = network.network_address.packed
    header[(place + 2) * size : (place + 3) * size] = network.netmask.packed


def _ports(protocol: Transport, which: int, matched: AnyPorts) -> bytes:
    """Return the match for ports."""
    if isinstance(matched, Ports):
        spans = (matched, _ANY) if which == _SOURCE else (_ANY, matched)
        numbers = (number for span in spans for number in (span.first, span.last))
        return _match(protocol.value, 0, _RANGES[protocol].pack(*numbers))
    slots: list[int] = []
    begins = bytearray(15)
    for span in matched.members:
        if span.first != span.last:
            begins[len(slots)] = 1
            slots.append(span.first)
        slots.append(span.last)
    padded = slots + [0] * (15 - len(slots))
    return _match(*MULTIPORT, _MULTIPORT.pack(which, len(slots), *padded, bytes(begins), 0))


def _match(name: str, revision: int, parameters: bytes) -> bytes:
    size = EXTENSION.size + len(parameters)
    return EXTENSION.pack(size, name.encode(), revision) + parameters
