"""Ways to get a packet out of a namespace, each tried once and reported as one line of JSON.

    python probes.py NAME key=value ...

Prints `result`, `errno`, `seconds`, and `seen` where the far end returns the client's address.
Results: connected, answered, sent (the kernel took it, no host answers such a packet), refused,
unreachable, denied (the kernel said no), timeout, unsupported (this kernel has no such thing),
error. A program of its own, standard library only: it runs in a namespace of the lab, in a
guest and in a container of Debian's python3 alike. Whether something really got out is not its
to say: a capture outside does, by the marker in every payload.
"""

import errno
import ipaddress
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

TIMEOUT = 2.0
MARKER = "probe-marker"
ROUTER_MAC = "02:00:00:00:00:01"

# Numbers that Python 3.11's socket module lacks, from the kernel's uapi headers.
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
IPV6_HDRINCL = 36
IP_NODEFRAG = 22
PACKET_QDISC_BYPASS = 20
SOL_PACKET = 263

DENIED = {errno.EPERM, errno.EACCES, errno.ENOBUFS}
UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
UNSUPPORTED = {errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT}

Outcome = dict[str, Any]


def outcome(err: OSError) -> Outcome:
    """Classify an error."""
    number = err.errno or 0
    if isinstance(err, TimeoutError) or number == errno.ETIMEDOUT:
        result = "timeout"
    elif number in {errno.ECONNREFUSED, errno.ECONNRESET}:
        result = "refused"
    elif number in UNREACHABLE:
        result = "unreachable"
    elif number in DENIED:
        result = "denied"
    elif number in UNSUPPORTED:
        result = "unsupported"
    else:
        result = "error"
    return {"result": result, "errno": errno.errorcode.get(number), "message": str(err)}


def version(address: str) -> int:
    """Return 4 or 6."""
    return ipaddress.ip_address(address).version


def family(address: str) -> int:
    """Return the socket family of an address; mapped IPv4 goes through an IPv6 socket."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_socket(
    host: str,
    kind: int,
    *,
    source: str,
    source_port: int,
    device: str,
    mark: int,
    timeout: float,
    protocol: int = 0,
) -> socket.socket:
    """Return a socket towards `host`, with every wish about its way out set."""
    outlet = socket.socket(family(host), kind, protocol)
    outlet.settimeout(timeout)
    if device:
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    if mark:
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark & 0xFFFFFFFF))
    if source or source_port:
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        outlet.bind((source or ("::" if ":" in host else "0.0.0.0"), source_port))
    return outlet


def tcp(
    host: str, port: int = 7, source: str = "", source_port: int = 0, device: str = "",
    mark: int = 0, timeout: float = TIMEOUT,
) -> Outcome:  # fmt: skip
    """Connect to the echo service and read the address that it saw."""
    with open_socket(
        host, socket.SOCK_STREAM, source=source, source_port=source_port, device=device,
        mark=mark, timeout=timeout,
    ) as outlet:  # fmt: skip
        outlet.connect((host, port))
        try:
            line = outlet.recv(256).decode().split()
        except TimeoutError:  # a service that waits for the client to speak
            line = []
        return {"result": "connected", "seen": line[0] if line else None}


def udp(
    host: str, port: int = 7, source: str = "", source_port: int = 0, device: str = "",
    mark: int = 0, timeout: float = TIMEOUT, marker: str = MARKER,
) -> Outcome:  # fmt: skip
    """Send a datagram to the echo service and read the address that it saw."""
    with open_socket(
        host, socket.SOCK_DGRAM, source=source, source_port=source_port, device=device,
        mark=mark, timeout=timeout,
    ) as outlet:  # fmt: skip
        # Connected, so that an ICMP error comes back as an error at once.
        outlet.connect((host, port))
        outlet.send(marker.encode())
        return {"result": "answered", "seen": outlet.recv(4096).decode().split()[0]}


def http(host: str, port: int = 80, device: str = "", timeout: float = TIMEOUT) -> Outcome:
    """Ask the HTTP service for the address that it saw."""
    with open_socket(
        host, socket.SOCK_STREAM, source="", source_port=0, device=device, mark=0,
        timeout=timeout,
    ) as outlet:  # fmt: skip
        outlet.connect((host, port))
        outlet.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := outlet.recv(4096):
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return {"result": "answered", "seen": body.decode().strip(), "head": head.decode()}


def ping(
    host: str, device: str = "", mark: int = 0, timeout: float = TIMEOUT, marker: str = MARKER
) -> Outcome:
    """Send an ICMP echo request on a raw socket and wait for its reply."""
    six = ":" in host
    kind, reply = (128, 129) if six else (8, 0)
    body = struct.pack("!HH", os.getpid() & 0xFFFF, 1) + marker.encode()
    message = struct.pack("!BBH", kind, 0, 0) + body
    message = struct.pack("!BBH", kind, 0, checksum(message)) + body  # the kernel redoes ICMPv6's
    with open_socket(
        host, socket.SOCK_RAW, source="", source_port=0, device=device, mark=mark,
        timeout=timeout, protocol=socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP,
    ) as outlet:  # fmt: skip
        outlet.connect((host, 0))
        outlet.send(message)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = outlet.recv(4096)
            answer = answer if six else answer[(answer[0] & 15) * 4 :]
            if answer[0] == reply and answer[4:] == body:
                return {"result": "answered"}
        raise TimeoutError


def raw(
    host: str, protocol: int = 47, device: str = "", mark: int = 0, marker: str = MARKER
) -> Outcome:
    """Send a packet of any IP protocol (47 GRE, 132 SCTP, 50 ESP, 253 experiments)."""
    with open_socket(
        host, socket.SOCK_RAW, source="", source_port=0, device=device, mark=mark, timeout=1,
        protocol=protocol,
    ) as outlet:  # fmt: skip
        outlet.sendto(bytes(8) + marker.encode(), (host, 0))
    return {"result": "sent"}


def sctp(host: str, port: int = 7, device: str = "", timeout: float = TIMEOUT) -> Outcome:
    """Open an SCTP association, where the kernel has SCTP."""
    with open_socket(
        host, socket.SOCK_STREAM, source="", source_port=0, device=device, mark=0,
        timeout=timeout, protocol=socket.IPPROTO_SCTP,
    ) as outlet:  # fmt: skip
        outlet.connect((host, port))
    return {"result": "connected"}


def forged(
    host: str, source: str, source_port: int = 40000, port: int = 7, device: str = "",
    mark: int = 0, transport: str = "udp", marker: str = MARKER,
) -> Outcome:  # fmt: skip
    """Send a packet whose IP header, forged source included, is made here.

    `transport` is udp or tcp (a SYN with data).
    """
    make = syn_packet if transport == "tcp" else udp_packet
    send_packets(host, [make(source, host, source_port, port, marker.encode())], device, mark)
    return {"result": "sent"}


def fragments(
    host: str, source: str, source_port: int = 40001, port: int = 7, device: str = "",
    mark: int = 0, marker: str = MARKER,
) -> Outcome:  # fmt: skip
    """Send a UDP packet in two fragments that the kernel is asked not to put together."""
    filler = marker.encode().ljust(64, b".")
    datagram = udp_packet(source, host, source_port, port, filler + filler)
    identity = int.from_bytes(os.urandom(2), "big")
    if version(host) == 6:
        inner = datagram[40:]
        packets = [
            ipv6_header(source, host, 44, size + 8)
            + struct.pack("!BBHI", 17, 0, offset | more, identity)
            + inner[offset : offset + size]
            for offset, size, more in ((0, 72, 1), (72, len(inner) - 72, 0))
        ]
    else:
        inner = datagram[20:]
        packets = [
            ipv4_header(source, host, 17, size, identity=identity, flags=more | offset // 8)
            + inner[offset : offset + size]
            for offset, size, more in ((0, 72, 0x2000), (72, len(inner) - 72, 0))
        ]
    send_packets(host, packets, device, mark)
    return {"result": "sent"}


def options(
    host: str, port: int = 7, device: str = "", timeout: float = TIMEOUT, marker: str = MARKER
) -> Outcome:
    """Send a datagram with IP options (record route) or a destination options header."""
    with open_socket(
        host, socket.SOCK_DGRAM, source="", source_port=0, device=device, mark=0,
        timeout=timeout,
    ) as outlet:  # fmt: skip
        if ":" in host:
            outlet.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, *bytes(4)])
            )
        else:
            outlet.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 11, 4, *bytes(9)]))
        outlet.connect((host, port))
        outlet.send(marker.encode())
        return {"result": "answered", "seen": outlet.recv(4096).decode().split()[0]}


def source_route(host: str, via: str, port: int = 7, marker: str = MARKER) -> Outcome:
    """Send a datagram that is to pass `via` first: LSRR (RFC 791) or a segment list (RFC 8754).

    Neither takes a capability.
    """
    with open_socket(
        host, socket.SOCK_DGRAM, source="", source_port=0, device="", mark=0, timeout=1
    ) as outlet:
        if ":" in host:
            segments = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (host, via))
            header = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + segments
            outlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header)
        else:
            route = bytes([131, 7, 4]) + socket.inet_aton(via) + b"\0"
            outlet.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)
        outlet.sendto(marker.encode(), (host, port))
    return {"result": "sent"}


def routed_syn(
    host: str, source: str, via: str, port: int = 7, source_port: int = 40003
) -> Outcome:
    """Ask for a TCP connection by a packet that has passed `via` (LSRR, RFC 791)."""
    plain = syn_packet(source, host, source_port, port)
    options = bytes([131, 7, 8]) + socket.inet_aton(via) + b"\0"
    header = bytes([0x47]) + plain[1:2] + struct.pack("!H", len(plain) + 8) + plain[4:10]
    header += bytes(2) + plain[12:20] + options
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    send_packets(host, [header + plain[20:]], "", 0)
    return {"result": "sent"}


def broadcast(
    host: str = "255.255.255.255", port: int = 7, device: str = "", marker: str = MARKER
) -> Outcome:
    """Send a datagram to a broadcast address."""
    with open_socket(
        host, socket.SOCK_DGRAM, source="", source_port=0, device=device, mark=0, timeout=1
    ) as outlet:
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        outlet.sendto(marker.encode(), (host, port))
    return {"result": "sent"}


def multicast(
    host: str = "224.0.0.251", port: int = 5353, device: str = "eth0", marker: str = MARKER
) -> Outcome:
    """Join a multicast group on `device` (which reports it by IGMP or MLD) and send to it."""
    index = socket.if_nametoindex(device)
    with open_socket(
        host, socket.SOCK_DGRAM, source="", source_port=0, device="", mark=0, timeout=1
    ) as outlet:
        if ":" in host:
            membership = socket.inet_pton(socket.AF_INET6, host) + struct.pack("@I", index)
            outlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            outlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            membership = socket.inet_aton(host) + struct.pack("@4si", bytes(4), index)
            outlet.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            interface = struct.pack("@4s4si", bytes(4), bytes(4), index)
            outlet.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        outlet.sendto(marker.encode(), (host, port))
    return {"result": "sent"}


def packet(
    host: str, source: str, device: str = "eth0", router_mac: str = ROUTER_MAC,
    source_port: int = 40002, port: int = 7, transport: str = "udp", bypass: int = 0,
    marker: str = MARKER,
) -> Outcome:  # fmt: skip
    """Send a whole frame on a packet socket: device "lo" injects what seems to come from outside.

    `transport` is udp or tcp (a SYN); `bypass` asks for PACKET_QDISC_BYPASS.
    """
    if transport == "tcp":
        body = syn_packet(source, host, source_port, port)
    else:
        body = udp_packet(source, host, source_port, port, marker.encode())
    mac = "00:00:00:00:00:00" if device == "lo" else router_mac
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as outlet:
        if bypass:
            outlet.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        outlet.sendto(ethernet(mac, source) + body, (device, 0))
    return {"result": "sent"}


def dns(
    server: str = "127.0.0.11", name: str = "example.test", kind: int = 1,
    transport: str = "udp", port: int = 53, device: str = "", timeout: float = TIMEOUT,
) -> Outcome:  # fmt: skip
    """Ask a resolver directly; `kind` is 1 for A, 28 for AAAA."""
    question = b"".join(bytes([len(p)]) + p for p in name.encode().split(b".")) + b"\0"
    query = struct.pack("!6H", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0)
    query += question + struct.pack("!HH", kind, 1)
    stream = transport == "tcp"
    with open_socket(
        server, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM, source="", source_port=0,
        device=device, mark=0, timeout=timeout,
    ) as outlet:  # fmt: skip
        outlet.connect((server, port))
        outlet.sendall(len(query).to_bytes(2, "big") + query if stream else query)
        answer = outlet.recv(4096)[2 if stream else 0 :]
    # One answer record, its name a pointer: 12 octets, then the address.
    data = answer[len(query) + 12 :]
    address = str(ipaddress.ip_address(data)) if len(data) in {4, 16} else None
    return {"result": "answered", "address": address}


def resolve(name: str) -> Outcome:
    """Resolve a name as applications do, through resolv.conf."""
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except socket.gaierror as err:
        return {"result": "error", "message": str(err)}
    return {"result": "answered", "addresses": sorted({str(entry[4][0]) for entry in found})}


def privileges() -> Outcome:
    """Return what this process may do, as /proc/self/status says it, and where it is."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - as a script
        lines = [line.split() for line in status if line.startswith(("Cap", "NoNewPrivs", "Uid"))]
    namespaces = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")}  # noqa: PTH115
    return {"result": "answered", "status": lines, "namespaces": namespaces}


def send_packets(host: str, packets: list[bytes], device: str, mark: int) -> None:
    """Send whole IP packets on a raw socket."""
    six = version(host) == 6
    with open_socket(
        host, socket.SOCK_RAW, source="", source_port=0, device=device, mark=mark, timeout=1,
        protocol=socket.IPPROTO_RAW,
    ) as outlet:  # fmt: skip
        if six:
            outlet.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        else:
            outlet.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            outlet.setsockopt(socket.IPPROTO_IP, IP_NODEFRAG, 1)
        for body in packets:
            outlet.sendto(body, (host, 0))


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def ethernet(router_mac: str, source: str) -> bytes:
    """Return an Ethernet header to the router for a packet of the family of `source`."""
    kind = ETH_P_IPV6 if ":" in source else ETH_P_IP
    mine = b"\x02\0\0\0\0\x02"
    return bytes.fromhex(router_mac.replace(":", "")) + mine + struct.pack("!H", kind)


def ipv4_header(
    source: str, destination: str, protocol: int, size: int, *, identity: int = 1, flags: int = 0
) -> bytes:
    """Return an IPv4 header for `size` octets of payload."""
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + size, identity, flags, 64, protocol)
    return head + struct.pack("!H", checksum(head + bytes(2) + ends)) + ends


def ipv6_header(source: str, destination: str, following: int, size: int) -> bytes:
    """Return an IPv6 header for `size` octets of payload."""
    head = struct.pack("!IHBB", 6 << 28, size, following, 64)
    return head + b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))


def ip_packet(source: str, destination: str, protocol: int, segment: bytes, at: int) -> bytes:
    """Put an IP header before a transport segment and its checksum at offset `at`."""
    six = ":" in source
    kind = socket.AF_INET6 if six else socket.AF_INET
    ends = socket.inet_pton(kind, source) + socket.inet_pton(kind, destination)
    pseudo = ends + struct.pack("!II", len(segment), protocol)
    value = struct.pack("!H", checksum(pseudo + segment) or 0xFFFF)
    segment = segment[:at] + value + segment[at + 2 :]
    header = ipv6_header if six else ipv4_header
    return header(source, destination, protocol, len(segment)) + segment


def udp_packet(source: str, destination: str, sport: int, dport: int, data: bytes) -> bytes:
    """Return an IP packet with one UDP datagram."""
    segment = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    return ip_packet(source, destination, 17, segment, 6)


def syn_packet(source: str, destination: str, sport: int, dport: int, data: bytes = b"") -> bytes:
    """Return an IP packet that asks for a TCP connection."""
    segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, 2, 65535, 0, 0) + data
    return ip_packet(source, destination, 6, segment, 16)


PROBES: dict[str, Callable[..., Outcome]] = {
    probe.__name__: probe
    for probe in (
        tcp, udp, http, ping, raw, sctp, forged, fragments, options, source_route,
        routed_syn, broadcast, multicast,
        packet, dns, resolve, privileges,
    )
}  # fmt: skip


def run(name: str, words: dict[str, str]) -> Outcome:
    """Run one probe with its arguments as text and return its complete outcome."""
    probe = PROBES[name]
    parameters = {name: kind for name, kind in probe.__annotations__.items() if name != "return"}
    arguments: dict[str, Any] = {}
    for key, text in words.items():
        if key in parameters:
            wanted = parameters[key]
            arguments[key] = int(text, 0) if wanted is int else wanted(text)
        elif key != "timeout":  # given to all, used by those that wait
            raise TypeError(f"{name} has no argument {key}; it has {', '.join(parameters)}")
    started = time.monotonic()
    result: Outcome = {"probe": name, "errno": None, "seen": None}
    try:
        result |= probe(**arguments)
    except OSError as err:
        result |= outcome(err)
    return result | {"seconds": time.monotonic() - started}


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(run(sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:]))) + "\n"
    )
