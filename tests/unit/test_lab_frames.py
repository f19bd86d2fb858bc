"""The lab's reading of frames: what it understands, and what it calls a leak."""

import struct

import pytest

from tests.lab import late, probes
from tests.lab.frames import (
    Frame,
    addressed_to,
    is_neighbour_discovery,
    is_wireguard,
    leaks,
    parse,
    reply_from,
    wireguard_to,
)

OWN = {"172.30.0.2", "fd30::2"}
NETWORKS = ("172.30.0.0/24", "fd30::/64")
MAC = "02:00:00:00:00:01"


def frame4(source: str, destination: str, protocol: int, body: bytes) -> Frame:
    """Return a parsed IPv4 frame."""
    header = probes.ipv4_header(source, destination, protocol, len(body))
    return parse(probes.ethernet(MAC, source) + header + body)


def frame6(source: str, destination: str, following: int, body: bytes) -> Frame:
    """Return a parsed IPv6 frame."""
    header = probes.ipv6_header(source, destination, following, len(body))
    return parse(probes.ethernet(MAC, source) + header + body)


def arp(sender: str, target: str) -> Frame:
    """Return a parsed ARP request."""
    ends = [bytes(map(int, address.split("."))) for address in (sender, target)]
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, b"m" * 6, ends[0], bytes(6), ends[1])
    return parse(b"\xff" * 6 + b"m" * 6 + b"\x08\x06" + body)


def neighbour(kind: int, source: str, destination: str, target: str) -> Frame:
    """Return a parsed neighbour solicitation (135) or advertisement (136)."""
    packed = probes.socket.inet_pton(probes.socket.AF_INET6, target)
    return frame6(source, destination, 58, bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + packed)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("172.30.0.2", "198.51.100.10"), ("fd30::2", "2001:db8:100::10")],
)
def test_a_udp_datagram_is_read_with_addresses_ports_and_payload(
    source: str, destination: str
) -> None:
    """Both families give the same fields."""
    packet = probes.udp_packet(source, destination, 1111, 53, b"marker")
    frame = parse(probes.ethernet(MAC, source) + packet, at=1.5, kernel_ns=7)
    assert (frame.source, frame.destination) == (source, destination)
    assert (frame.protocol, frame.source_port, frame.destination_port) == (17, 1111, 53)
    assert (frame.payload, frame.at, frame.kernel_ns) == (b"marker", 1.5, 7)
    assert frame.destination_mac == MAC


def test_a_connection_attempt_is_read_with_its_flags() -> None:
    """The SYN flag alone is 2."""
    packet = probes.syn_packet("172.30.0.2", "198.51.100.10", 1111, 80)
    frame = parse(probes.ethernet(MAC, "172.30.0.2") + packet)
    assert (frame.protocol, frame.destination_port, frame.tcp_flags) == (6, 80, 2)
    assert frame.payload == b""


def test_padding_after_a_short_packet_is_not_payload() -> None:
    """Ethernet pads to 60 octets; the IP length says what belongs to the packet."""
    packet = probes.udp_packet("172.30.0.2", "198.51.100.10", 1, 2, b"x")
    assert parse(probes.ethernet(MAC, "172.30.0.2") + packet + bytes(30)).payload == b"x"


def test_a_later_fragment_has_an_offset_and_no_ports() -> None:
    """What is where ports would be is data."""
    header = probes.ipv4_header("172.30.0.2", "198.51.100.10", 17, 8, flags=0x2000 | 9)
    later4 = parse(probes.ethernet(MAC, "172.30.0.2") + header + b"datadata")
    later6 = frame6("fd30::2", "2001:db8::1", 44, struct.pack("!BBHI", 17, 0, 72, 5) + b"datadata")
    for frame in (later4, later6):
        assert (frame.fragment_offset, frame.source_port) == (72, None)
        assert frame.payload == b"datadata"


def test_ports_are_found_behind_ipv6_extension_headers() -> None:
    """Hop-by-hop and destination options, a first fragment and an authentication header."""
    datagram = struct.pack("!HHHH", 1111, 53, 14, 0) + b"marker"
    options = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([44, 0, 1, 4, 0, 0, 0, 0])
    fragment = struct.pack("!BBHI", 51, 0, 1, 5)
    authentication = bytes([17, 1]) + bytes(10)
    frame = frame6("fd30::2", "2001:db8::1", 0, options + fragment + authentication + datagram)
    assert (frame.protocol, frame.destination_port, frame.payload) == (17, 53, b"marker")


@pytest.mark.parametrize("size", range(14, 90, 3))
def test_a_frame_cut_short_anywhere_is_still_a_frame_and_a_leak(size: int) -> None:
    """Nothing that arrives may be lost by the parser."""
    whole = probes.ethernet(MAC, "fd30::2") + probes.udp_packet(
        "fd30::2", "2001:db8::1", 1, 2, b"marker" * 5
    )
    frame = parse(whole[:size])
    assert frame.raw == whole[:size]
    assert leaks([frame], [wireguard_to("192.0.2.10")]) == [frame]
    assert str(frame)


def test_an_unknown_ethertype_is_a_leak() -> None:
    """An odd protocol straight on Ethernet is seen like any other."""
    frame = parse(bytes(12) + b"\x88\xb5" + b"marker")
    assert frame.payload == b"marker"
    assert leaks([frame], [lambda f: is_neighbour_discovery(f, OWN, NETWORKS)]) == [frame]


def test_a_tagged_frame_is_read_behind_its_tag() -> None:
    """A VLAN tag hides nothing."""
    packet = probes.udp_packet("172.30.0.2", "198.51.100.10", 1, 2, b"x")
    assert parse(bytes(12) + b"\x81\x00\x00\x05\x08\x00" + packet).destination == "198.51.100.10"


def test_arp_between_on_link_addresses_is_neighbour_discovery() -> None:
    """The request for the router's MAC address is part of any encrypted flow."""
    assert is_neighbour_discovery(arp("172.30.0.2", "172.30.0.1"), OWN, NETWORKS)


@pytest.mark.parametrize(
    ("sender", "target"), [("10.64.0.2", "172.30.0.1"), ("172.30.0.2", "198.51.100.10")]
)
def test_arp_for_any_other_address_is_a_leak(sender: str, target: str) -> None:
    """The tunnel's address must not speak there, nor may a foreign one be asked for."""
    assert not is_neighbour_discovery(arp(sender, target), OWN, NETWORKS)


@pytest.mark.parametrize(
    ("kind", "source", "destination", "target"),
    [
        (135, "fd30::2", "ff02::1:ff00:1", "fd30::1"),
        (135, "fe80::1", "ff02::1:ff00:1", "fd30::1"),
        (136, "fd30::2", "fd30::1", "fd30::2"),
        (136, "fe80::1", "fd30::1", "fe80::1"),
    ],
)
def test_neighbour_discovery_of_the_link_is_recognised(
    kind: int, source: str, destination: str, target: str
) -> None:
    """Solicitations for neighbours and advertisements of own addresses belong to the link."""
    frame = neighbour(kind, source, destination, target)
    assert is_neighbour_discovery(frame, OWN, NETWORKS)


@pytest.mark.parametrize(
    ("kind", "source", "destination", "target"),
    [
        (136, "fd64::2", "fd30::1", "fd64::2"),
        (136, "fd30::2", "fd30::1", "fd64::2"),
        (135, "fd30::2", "ff02::1:ff00:1", "2001:db8::1"),
        (135, "fd30::2", "2001:db8::1", "fd30::1"),
    ],
)
def test_neighbour_discovery_about_anything_else_is_a_leak(
    kind: int, source: str, destination: str, target: str
) -> None:
    """The tunnel's address is dead on the uplink, and messages stay on the link."""
    frame = neighbour(kind, source, destination, target)
    assert not is_neighbour_discovery(frame, OWN, NETWORKS)


def test_other_icmpv6_is_not_neighbour_discovery() -> None:
    """Multicast reports and router solicitations show the host to the link."""
    for kind in (128, 133, 143):
        frame = frame6("fe80::1", "ff02::16", 58, bytes([kind]) + bytes(31))
        assert not is_neighbour_discovery(frame, OWN, NETWORKS)


@pytest.mark.parametrize(
    "message",
    [
        b"\x01\0\0\0" + bytes(144),
        b"\x02\0\0\0" + bytes(88),
        b"\x03\0\0\0" + bytes(60),
        b"\x04\0\0\0" + bytes(28),
        b"\x04\0\0\0" + bytes(28 + 16 * 80),
    ],
)
def test_wireguard_messages_are_recognised_by_endpoint_and_form(message: bytes) -> None:
    """All four message types, to that address and port only."""
    datagram = struct.pack("!HHHH", 51820, 51820, 8 + len(message), 0) + message
    frame = frame4("172.30.0.2", "192.0.2.10", 17, datagram)
    assert is_wireguard(frame, "192.0.2.10", 51820)
    assert not is_wireguard(frame, "192.0.2.11", 51820)
    assert not is_wireguard(frame, "192.0.2.10", 51821)


@pytest.mark.parametrize(
    "message",
    [b"", b"marker", b"\x01\0\0\0", b"\x04\0\0\x01" + bytes(28), b"\x04\0\0\0" + bytes(29)],
)
def test_anything_else_sent_to_the_endpoint_is_a_leak(message: bytes) -> None:
    """A workload that reaches the endpoint with a forged mark has leaked."""
    datagram = struct.pack("!HHHH", 51820, 51820, 8 + len(message), 0) + message
    frame = frame4("172.30.0.2", "192.0.2.10", 17, datagram)
    assert leaks([frame], [wireguard_to("192.0.2.10")]) == [frame]


def test_allowances_cover_what_they_say_and_no_more() -> None:
    """A subnet by destination, a published port by protocol and source port."""
    lan = frame4("172.30.0.2", "192.168.77.10", 17, struct.pack("!HHHH", 1, 2, 8, 0))
    reply = parse(
        probes.ethernet(MAC, "172.30.0.2")
        + probes.syn_packet("172.30.0.2", "203.0.113.66", 8080, 999)
    )
    assert leaks([lan, reply], [addressed_to("192.168.77.0/24")]) == [reply]
    assert leaks([lan, reply], [reply_from(8080)]) == [lan]
    assert leaks([lan, reply], [reply_from(8080, 17)]) == [lan, reply]


def test_a_late_link_has_a_moment_for_packet_sockets_only_and_only_where_not_foreseen() -> None:
    """Ordinary sockets have none, and the moment ends."""
    seen = {
        (kind, at): Frame(at, f"flood-marker {kind} 7 1".encode())
        for kind in ("packet4", "device4")
        for at in (5.0, 5.1, 5.2 + late.CLOSED_AFTER)
    }
    frames = list(seen.values())
    assert late.too_many(frames, foreseen=True) == frames
    late_one = seen["packet4", 5.2 + late.CLOSED_AFTER]
    ordinary = [frame for (kind, _), frame in seen.items() if kind == "device4"]
    assert late.too_many(frames, foreseen=False) == [late_one, *ordinary]
    assert late.too_many([], foreseen=False) == []
