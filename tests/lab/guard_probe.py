"""Frames with forged marks, and sockets that listen for marks: what the egress guard is up against.

    python guard_probe.py send DEVICE FRAME_IN_HEX [mark=N] [bypass=1] [kind=0x0806]
    python guard_probe.py listen SECONDS

A program of its own, standard library only, for a workload of the lab. `send` prints "sent" or
the name of the error. `listen` prints "ready", then one line for each mark other than zero that
a packet socket or a raw ICMPv6 or UDP socket was shown: the socket's name and the mark.
"""

import errno
import select
import socket
import struct
import sys
import time

# Numbers that Python's socket module lacks, from the kernel's uapi headers.
SO_MARK = 36
SO_RCVMARK = 75
SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
ETH_P_ALL = 3


def send(device: str, frame: str, mark: int = 0, bypass: int = 0, kind: int = 0) -> str:
    """Send a whole frame; `kind` is the type that the kernel gets, 0 to take the frame's."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as outlet:
        if mark:
            outlet.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("=I", mark))
        if bypass:
            outlet.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        try:
            outlet.sendto(bytes.fromhex(frame), (device, kind))
        except OSError as err:
            return errno.errorcode.get(err.errno or 0, str(err))
    return "sent"


def listen(seconds: float) -> None:
    """Print every mark that a socket of this process may see."""
    sockets = {
        "packet": socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)),
        "icmpv6": socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
    }
    names = {opened: name for name, opened in sockets.items()}
    for opened in names:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
    say("ready")
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for opened in select.select(list(names), [], [], left)[0]:
            _, ancillary, _, _ = opened.recvmsg(65536, 256)
            for level, kind, data in ancillary:
                mark = struct.unpack("=I", data)[0] if len(data) == 4 else 0
                if (level, kind) == (socket.SOL_SOCKET, SO_MARK) and mark:
                    say(f"{names[opened]} {mark:#x}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "listen":
        listen(float(words[0]))
    else:
        wishes = dict(word.split("=", 1) for word in words[2:])
        say(send(words[0], words[1], **{name: int(text, 0) for name, text in wishes.items()}))
