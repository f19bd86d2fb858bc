"""Sends whole frames by AF_XDP sockets, below every hook of the network namespace.

    python xdp.py send < JOBS      try each of a list of jobs; print what came of each, as JSON
    python xdp.py hold JOB         take the queue as soon as it is free, and send without end

A job is a JSON object: `device`, `queue`, `frame` (hexadecimal), and optionally `mode` (copy,
zerocopy or any), `wakeup` (XDP_USE_NEED_WAKEUP) and `shared` (a device and queue whose socket is
bound first and lends its UMEM). A transmit-only socket needs no BPF program and only CAP_NET_RAW.
Source: linux/if_xdp.h, kernel documentation networking/af_xdp, net/xdp/xsk.c. A program of its own,
standard library only, for a workload of the lab.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AF_XDP, SOL_XDP = 44, 283
MMAP_OFFSETS, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING = 1, 3, 4, 5, 6
SHARED_UMEM, COPY, ZEROCOPY, USE_NEED_WAKEUP = 1, 2, 4, 8
MODES = {"any": 0, "copy": COPY, "zerocopy": ZEROCOPY}
TX_PAGES, COMPLETION_PAGES = 0x80000000, 0x180000000
"""Where mmap finds the rings of frames to send and of those that were sent (XDP_PGOFF_TX_RING)."""

SIOCETHTOOL, ETHTOOL_SCHANNELS = 0x8946, 0x3D
"""linux/sockios.h, linux/ethtool.h."""

CHUNK = 4096
ENTRIES = 64
"""Frames in flight; a ring of as many fits into one page."""
DESCRIPTOR = struct.Struct("=QII")
PAUSE = 0.002
"""Seconds between two tries, and between two frames of `hold`."""

RELEASE_TIME = 0.1
"""Seconds that `send` waits for a queue that is taken: the kernel releases one with a delay."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Job:
    """A frame, and the socket to send it by."""

    device: str
    frame: bytes
    queue: int = 0
    mode: str = "copy"
    wakeup: bool = False
    shared: tuple[str, int] | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Job":
        """Return the job that `given` describes."""
        shared = given.get("shared")
        return cls(
            **{
                **given,
                "frame": bytes.fromhex(given["frame"]),
                "shared": tuple(shared) if shared else None,
            }
        )


class Sender:
    """A transmit-only socket, bound to one queue of one device."""

    def __init__(self, job: Job) -> None:
        """Bind as `job` says. Raises OSError: EBUSY where the queue belongs to another socket."""
        self._lender = (
            Sender(Job(job.shared[0], b"", job.shared[1], job.mode)) if job.shared else None
        )
        self._socket = socket.socket(AF_XDP, socket.SOCK_RAW)
        self._rings: list[mmap.mmap] = []
        self.memory = self._lender.memory if self._lender else mmap.mmap(-1, CHUNK * ENTRIES)
        try:
            self._make_rings()
            self._bind(job)
        except OSError:
            self.close()
            raise
        self._sent = 0

    def send(self, frame: bytes) -> None:
        """Send one frame, as it is."""
        place = self._sent % ENTRIES
        self.memory[place * CHUNK : place * CHUNK + len(frame)] = frame
        ring, done = self._rings
        producer, _, descriptors, _ = self._offsets[4:8]
        at = descriptors + place * DESCRIPTOR.size
        ring[at : at + DESCRIPTOR.size] = DESCRIPTOR.pack(place * CHUNK, len(frame), 0)
        self._sent += 1
        ring[producer : producer + 4] = struct.pack("=I", self._sent & 0xFFFFFFFF)
        # What was sent is taken off: nothing more is sent while the ring of it is full.
        producer, consumer, *_ = self._offsets[12:16]
        done[consumer : consumer + 4] = done[producer : producer + 4]
        self._socket.send(b"", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Give the queue back, which a mapped ring would keep."""
        self._socket.close()
        for ring in self._rings:
            ring.close()
        if self._lender:
            self._lender.close()

    def _make_rings(self) -> None:
        if not self._lender:
            address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
            memory = struct.pack("=QQII", address, len(self.memory), CHUNK, 0)
            self._socket.setsockopt(SOL_XDP, UMEM_REG, memory)
        for ring in (FILL_RING, COMPLETION_RING, TX_RING):
            self._socket.setsockopt(SOL_XDP, ring, ENTRIES)
        answer = self._socket.getsockopt(SOL_XDP, MMAP_OFFSETS, 128)
        self._offsets = struct.unpack("=16Q", answer)
        for pages in (TX_PAGES, COMPLETION_PAGES):
            self._rings.append(mmap.mmap(self._socket.fileno(), mmap.PAGESIZE, offset=pages))

    def _bind(self, job: Job) -> None:
        flags = MODES[job.mode] | (USE_NEED_WAKEUP if job.wakeup else 0)
        lender = 0
        if self._lender:
            # The lender's flags count (net/xdp/xsk.c, xsk_bind).
            flags, lender = SHARED_UMEM, self._lender.descriptor
        index = socket.if_nametoindex(job.device)
        address = struct.pack("=HHIII", AF_XDP, flags, index, job.queue, lender)
        if _LIBC.bind(self._socket.fileno(), address, len(address)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @property
    def descriptor(self) -> int:
        """The number by which another socket of this process names this one."""
        return self._socket.fileno()


def set_queues(device: str, number: int) -> None:
    """Put `number` queues of a device to use, each way, as `ethtool -L` does; takes NET_ADMIN."""
    wanted = struct.pack("=9I", ETHTOOL_SCHANNELS, 0, 0, 0, 0, number, number, 0, 0)
    channels = ctypes.create_string_buffer(wanted)
    request = struct.pack("@16sP", device.encode(), ctypes.addressof(channels))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, SIOCETHTOOL, request.ljust(40, bytes(1)))


def attempt(job: Job) -> str:
    """Send the frame of `job`; return "sent", or the name of the error."""
    deadline = time.monotonic() + RELEASE_TIME
    while True:
        try:
            sender = Sender(job)
            try:
                sender.send(job.frame)
            finally:
                sender.close()
        except OSError as err:
            if err.errno != errno.EBUSY or time.monotonic() > deadline:
                return errno.errorcode.get(err.errno or 0, str(err))
            time.sleep(PAUSE)
        else:
            return "sent"


def hold(job: Job) -> None:
    """Take the queue whenever it can be had, and send its frame over and over."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        try:
            sender = Sender(job)
        except OSError:  # another's, or no such device yet
            time.sleep(PAUSE)
            continue
        sys.stdout.write("bound\n")
        sys.stdout.flush()
        try:
            while True:
                _send_if_possible(sender, job.frame)
                time.sleep(PAUSE)
        except OSError:  # the device went away
            sender.close()


def _send_if_possible(sender: Sender, frame: bytes) -> None:
    try:
        sender.send(frame)
    except OSError as err:
        if err.errno == errno.ENXIO:
            raise


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(Job.read(json.loads(sys.argv[2])))
    jobs = [Job.read(given) for given in json.load(sys.stdin)]
    sys.stdout.write(json.dumps([attempt(job) for job in jobs]) + "\n")
