"""Record every frame that a link receives into a file, until standard input closes.

    python recorder.py LINK FILE BUFFER

A program of its own, standard library only: it runs in a namespace, in a guest or next to a
container, and no lock of the test's interpreter can make it lose frames. The buffer takes what
a flood sends while this process waits for its turn; what the kernel had to drop all the same is
counted and reported. A line on standard input asks for a sync: everything received until then is in
the file when the answer {"frames": n, "drops": n} has been printed.
"""

import json
import os
import select
import socket
import struct
import sys
import time
from typing import BinaryIO

ETH_P_ALL = 3
PACKET_IGNORE_OUTGOING = 23
PACKET_STATISTICS = 6
SOL_PACKET = 263
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35

RECORD = struct.Struct("!QQI")
"""Monotonic and wall clock in nanoseconds, length of the frame that follows."""

_LONGEST_FRAME = 1 << 18
_BATCH = 256
_QUIET = 0.01
_TIMESPEC = struct.Struct("@ll")


class Recorder:
    """The socket, the file and the counters."""

    def __init__(self, link: str, output: BinaryIO, buffer: int) -> None:
        """Open the packet socket on `link`; frames are written to `output`."""
        self.output = output
        self.frames = 0
        self.drops = 0
        self.last = 0
        self.view = memoryview(bytearray(_LONGEST_FRAME))
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.socket.setblocking(False)
        self.socket.bind((link, ETH_P_ALL))

    def drain(self) -> bool:
        """Write one batch of waiting frames; False when none is left."""
        offset = time.time_ns() - time.monotonic_ns()
        for _ in range(_BATCH):
            try:
                size, ancillary, _, address = self.socket.recvmsg_into([self.view], 64)
            except BlockingIOError:
                return False
            except OSError:  # the link went down: the error is reported once, then it is quiet
                return False
            if address[2] == socket.PACKET_OUTGOING:
                continue
            stamp = time.time_ns()
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                    seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
                    stamp = seconds * 1_000_000_000 + nanoseconds
            self.last = stamp - offset
            self.output.write(RECORD.pack(self.last, stamp, size))
            self.output.write(self.view[:size])
            self.frames += 1
        return True

    def sync(self) -> str:
        """Write everything received until now and return the counters as one line."""
        target = time.monotonic_ns()
        while self.drain() or select.select([self.socket], [], [], _QUIET)[0]:
            if self.last > target:
                break
        self.output.flush()
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.drops += struct.unpack("@II", statistics)[1]  # reading resets the kernel's counter
        return json.dumps({"frames": self.frames, "drops": self.drops})


def main() -> None:
    """Record until standard input ends."""
    link, path, buffer = sys.argv[1:]
    with open(path, "wb", buffering=1 << 20) as output:  # noqa: PTH123 - as a script of its own
        recorder = Recorder(link, output, int(buffer))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        poll = select.poll()
        poll.register(recorder.socket, select.POLLIN)
        poll.register(sys.stdin.fileno(), select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == sys.stdin.fileno():
                    if not os.read(descriptor, 4096):
                        recorder.sync()
                        return
                    sys.stdout.write(recorder.sync() + "\n")
                    sys.stdout.flush()
                else:
                    recorder.drain()


if __name__ == "__main__":
    main()
