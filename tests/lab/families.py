"""Sends one frame or packet by a way that few programs use, as a workload could.

    python families.py WAY DEVICE HOST MARKER FRAME

FRAME is a whole frame with the marker, in hexadecimal; WAY is a key of WAYS. Prints "sent", or the
name of the error. Source: packet(7), kernel documentation networking/packet_mmap, udplite(7),
linux/if_packet.h. A program of its own, standard library only, for a workload of the lab.
"""

import errno
import mmap
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

SOL_PACKET = 263
PACKET_VERSION, PACKET_TX_RING, PACKET_VNET_HDR, PACKET_QDISC_BYPASS = 10, 13, 15, 20
TPACKET_V2 = 1
HEADER = struct.Struct("=IIIHHIIHH4x")
"""struct tpacket2_hdr; what is sent by the ring begins right behind it."""
SEND_REQUEST = 1
NO_OFFLOAD = bytes(10)
"""struct virtio_net_hdr that asks for nothing."""
IPPROTO_UDPLITE, IPPROTO_MPTCP = 136, 262
PORT = 4711


def packet_socket(device: str, *, bypass: bool) -> socket.socket:
    """Return a packet socket on `device`, that goes past the queue or not."""
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    if bypass:
        channel.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    channel.bind((device, 0))
    return channel


def by_ring(device: str, frame: bytes, *, bypass: bool = False) -> None:
    """Send by a ring in shared memory (PACKET_TX_RING)."""
    with packet_socket(device, bypass=bypass) as channel:
        size = mmap.PAGESIZE
        channel.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        channel.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("=4I", size, 1, size, 1))
        with mmap.mmap(channel.fileno(), size) as ring:
            ring[HEADER.size : HEADER.size + len(frame)] = frame
            ring[: HEADER.size] = HEADER.pack(SEND_REQUEST, len(frame), 0, 0, 0, 0, 0, 0, 0)
            channel.send(b"")


def with_offload(device: str, frame: bytes, *, bypass: bool = False) -> None:
    """Send with a header that may ask the device to do more (PACKET_VNET_HDR)."""
    with packet_socket(device, bypass=bypass) as channel:
        channel.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        channel.send(NO_OFFLOAD + frame)


def udplite(device: str, host: str, marker: bytes) -> None:
    """Send by UDP-Lite, bound to the device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, IPPROTO_UDPLITE) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        channel.sendto(marker, (host, PORT))


def mptcp(device: str, host: str, marker: bytes) -> None:
    """Try to connect by MPTCP, bound to the device; the port replaces the marker."""
    del marker
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as channel:
        channel.settimeout(0.2)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        with suppress(TimeoutError, ConnectionRefusedError):
            channel.connect((host, PORT))


WAYS: dict[str, Callable[[str, str, bytes, bytes], None]] = {
    "ring": lambda device, _host, _marker, frame: by_ring(device, frame),
    "ring-bypass": lambda device, _host, _marker, frame: by_ring(device, frame, bypass=True),
    "offload": lambda device, _host, _marker, frame: with_offload(device, frame),
    "offload-bypass": lambda d, _host, _marker, frame: with_offload(d, frame, bypass=True),
    "udplite": lambda device, host, marker, _frame: udplite(device, host, marker),
    "mptcp": lambda device, host, marker, _frame: mptcp(device, host, marker),
}

if __name__ == "__main__":
    way, link, target, mark, whole = sys.argv[1:]
    try:
        WAYS[way](link, target, mark.encode(), bytes.fromhex(whole))
    except OSError as err:
        sys.stdout.write(errno.errorcode.get(err.errno or 0, str(err)))
    else:
        sys.stdout.write("sent")
