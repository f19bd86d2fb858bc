"""Ethernet frames as values: parsing, and the judgement of what may be seen on the uplink.

Pure functions. What cannot be parsed stays a frame with its raw bytes, and is a leak: a
judgement that skips what it does not understand would be blind to exactly the odd packets.
"""

import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_VLAN = 0x8100
ETH_IPV6 = 0x86DD

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_PORTS = {TCP, UDP, 33, 132, 136}  # TCP, UDP, DCCP, SCTP, UDP-Lite: two 16-bit ports first
_HEADER_LENGTH = {UDP: 8, 132: 12, 136: 8, ICMP: 8, ICMPV6: 8}

# RFC 8200: hop-by-hop, routing, destination options, mobility; fragment and AH differ in length.
_IPV6_OPTIONS = {0, 43, 60, 135}
_IPV6_FRAGMENT = 44
_IPV6_AH = 51

NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
_IGMP = 2
_MLD = {131, 132, 143}
_LINK_LOCAL = ip_network("fe80::/10")
_SOLICITED_NODE = ip_network("ff02::1:ff00:0/104")

# The WireGuard paper, 5.4: message types with their length; transport data is padded to 16.
_WIREGUARD_LENGTH = {1: 148, 2: 92, 3: 64}
_WIREGUARD_DATA = 4
_WIREGUARD_OVERHEAD, _MTU = 32, 1420

Judgement = Callable[["Frame"], bool]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as the far end of the link received it."""

    at: float
    """Seconds on the monotonic clock, from the kernel's own stamp."""
    raw: bytes
    """The whole frame, from the destination MAC on."""
    kernel_ns: int = 0
    """The kernel's stamp on the wall clock, in nanoseconds."""
    ethertype: int = 0
    source: str = ""
    """IP source, or the sender's protocol address of an ARP packet."""
    destination: str = ""
    """IP destination, or the address that an ARP packet asks for."""
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    tcp_flags: int | None = None
    fragment_offset: int = 0
    target: str = ""
    """Address that a neighbour solicitation or advertisement is about."""
    payload: bytes = b""
    """What follows the innermost header that was understood."""

    @property
    def source_mac(self) -> str:
        """MAC address of the sender."""
        return self.raw[6:12].hex(":")

    @property
    def destination_mac(self) -> str:
        """MAC address of the receiver."""
        return self.raw[:6].hex(":")

    def __str__(self) -> str:
        """One line for a failure message."""
        kind = {ETH_ARP: "arp", ETH_IPV4: "ip", ETH_IPV6: "ip6"}.get(
            self.ethertype, f"{self.ethertype:#06x}"
        )
        ports = "" if self.source_port is None else f" {self.source_port}>{self.destination_port}"
        icmp = "" if self.icmp_type is None else f" type {self.icmp_type}"
        return (
            f"{self.at:.6f} {kind} {self.source or self.source_mac} > "
            f"{self.destination or self.destination_mac} proto {self.protocol}{ports}{icmp} "
            f"{len(self.raw)} bytes {self.payload[:32]!r}"
        )


def parse(raw: bytes, *, at: float = 0.0, kernel_ns: int = 0) -> Frame:
    """Parse one Ethernet frame; what is cut short or unknown leaves the fields empty."""
    fields: dict[str, object] = {}
    offset = 14
    ethertype = int.from_bytes(raw[12:14], "big")
    while ethertype == ETH_VLAN:
        ethertype = int.from_bytes(raw[offset + 2 : offset + 4], "big")
        offset += 4
    body = raw[offset:]
    try:
        if ethertype == ETH_IPV4:
            fields = _ipv4(body)
        elif ethertype == ETH_IPV6:
            fields = _ipv6(body)
        elif ethertype == ETH_ARP:
            fields = _arp(body)
    except (struct.error, ValueError):
        fields = {}
    fields.setdefault("payload", body)
    return Frame(at, raw, kernel_ns, ethertype, **fields)  # type: ignore[arg-type]


def _arp(body: bytes) -> dict[str, object]:
    hardware, protocol, _, _, _ = struct.unpack_from("!HHBBH", body)
    if (hardware, protocol) != (1, ETH_IPV4):
        return {}
    sender, target = struct.unpack_from("!6x4s6x4s", body, 8)
    return {"source": str(IPv4Address(sender)), "destination": str(IPv4Address(target))}


def _ipv4(body: bytes) -> dict[str, object]:
    first, total, flags, protocol = struct.unpack_from("!BxHxxHxB", body)
    source, destination = struct.unpack_from("!4s4s", body, 12)
    fragment_offset = (flags & 0x1FFF) * 8
    # A total of zero is what segmentation offload leaves for packets over 64 KiB.
    inner = body[(first & 15) * 4 : total or None]
    return {
        "source": str(IPv4Address(source)),
        "destination": str(IPv4Address(destination)),
        "protocol": protocol,
        "fragment_offset": fragment_offset,
    } | _transport(protocol, inner, fragment_offset)


def _ipv6(body: bytes) -> dict[str, object]:
    length, following, source, destination = struct.unpack_from("!4xHBx16s16s", body)
    inner = body[40 : 40 + length if length else None]
    fragment_offset = 0
    while fragment_offset == 0:
        if following in _IPV6_OPTIONS:
            size = (inner[1] + 1) * 8 if len(inner) > 1 else 8
        elif following == _IPV6_AH:
            size = (inner[1] + 2) * 4 if len(inner) > 1 else 8
        elif following == _IPV6_FRAGMENT:
            size = 8
            fragment_offset = int.from_bytes(inner[2:4], "big") & 0xFFF8
        else:
            break
        if len(inner) < size:
            break
        following, inner = inner[0], inner[size:]
    return {
        "source": str(IPv6Address(source)),
        "destination": str(IPv6Address(destination)),
        "protocol": following,
        "fragment_offset": fragment_offset,
    } | _transport(following, inner, fragment_offset)


def _transport(protocol: int, inner: bytes, fragment_offset: int) -> dict[str, object]:
    """Read ports or the ICMP type; a later fragment has neither."""
    fields: dict[str, object] = {"payload": inner}
    if fragment_offset:
        return fields
    if protocol in _PORTS and len(inner) >= 4:
        fields["source_port"], fields["destination_port"] = struct.unpack_from("!HH", inner)
    if protocol in {ICMP, ICMPV6} and inner:
        fields["icmp_type"] = inner[0]
        if inner[0] in {NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT} and len(inner) >= 24:
            fields["target"] = str(IPv6Address(inner[8:24]))
    header = _HEADER_LENGTH.get(protocol, 0)
    if protocol == TCP and len(inner) >= 20:
        header = (inner[12] >> 4) * 4
        fields["tcp_flags"] = inner[13]
    fields["payload"] = inner[header:]
    return fields


def is_neighbour_discovery(
    frame: Frame, addresses: Collection[str], networks: Iterable[str]
) -> bool:
    """Return whether ARP or IPv6 neighbour discovery stays between on-link addresses.

    `addresses` are the sender's own on that link: an answer for any other address (the
    tunnel's above all) is not neighbour discovery but a leak. `networks` are the link's.
    """
    on_link = [ip_network(network) for network in networks]
    if frame.ethertype == ETH_ARP:
        return frame.source in addresses and _within(frame.destination, on_link)
    if frame.protocol != ICMPV6 or frame.icmp_type not in {
        NEIGHBOUR_SOLICITATION,
        NEIGHBOUR_ADVERTISEMENT,
    }:
        return False
    local = [*on_link, _LINK_LOCAL]
    own = _within(frame.source, [_LINK_LOCAL]) or frame.source in addresses
    if frame.icmp_type == NEIGHBOUR_ADVERTISEMENT:
        about = frame.target in addresses or _within(frame.target, [_LINK_LOCAL])
    else:
        about = _within(frame.target, local)
    return own and about and _within(frame.destination, [*local, _SOLICITED_NODE])


def _within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return bool(address) and any(ip_address(address) in network for network in networks)


def is_multicast_report(frame: Frame) -> bool:
    """Return whether the kernel itself reported to the link which multicast groups the host is in.

    IGMP, and MLD (ICMPv6 131, 132 and 143). An open namespace sends these when a link comes up and
    for some seconds after; a locked one must not.
    """
    return frame.protocol == _IGMP or (frame.protocol == ICMPV6 and frame.icmp_type in _MLD)


def is_wireguard(frame: Frame, address: str, port: int) -> bool:
    """Return whether the frame is the encrypted flow to one endpoint, by address, port and form.

    The form (message type, reserved zeros, length) distinguishes what a workload sends to the
    endpoint with a forged mark.
    """
    if (frame.protocol, frame.destination, frame.destination_port) != (UDP, address, port):
        return False
    if len(frame.payload) < 4 or frame.payload[1:4] != bytes(3):
        return False
    kind = frame.payload[0]
    if kind == _WIREGUARD_DATA:
        # Padded to a multiple of 16, but not beyond the MTU (WireGuard paper, section 5.4.6).
        full = len(frame.payload) == _WIREGUARD_OVERHEAD + _MTU
        return full or (len(frame.payload) >= 32 and len(frame.payload) % 16 == 0)
    return len(frame.payload) == _WIREGUARD_LENGTH.get(kind)


def wireguard_to(address: str, port: int = 51820) -> Judgement:
    """Allow the encrypted flow to this endpoint."""
    return lambda frame: is_wireguard(frame, address, port)


def addressed_to(network: str) -> Judgement:
    """Allow IP packets to this address or network."""
    wanted = ip_network(network)
    return lambda frame: (
        frame.ethertype in {ETH_IPV4, ETH_IPV6} and _within(frame.destination, [wanted])
    )


def reply_from(port: int, protocol: int = TCP) -> Judgement:
    """Allow what leaves from this local port: the replies of a published port."""
    return lambda frame: frame.protocol == protocol and frame.source_port == port


def leaks(frames: Iterable[Frame], allowed: Collection[Judgement]) -> list[Frame]:
    """Return the frames that no judgement allows."""
    return [frame for frame in frames if not any(judge(frame) for judge in allowed)]
