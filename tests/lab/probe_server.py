"""Runs the probes of probes.py, each in a process of its own that is forked from this one.

    python probe_server.py DESCRIPTOR

A probe takes a millisecond and the start of its interpreter a hundred times as long, so the
interpreter starts once. DESCRIPTOR is a sequenced-packet socket. Each request on it is one JSON
object, and carries descriptors: the stream for the answer, the network namespace and, optionally,
the mount namespace to enter. Keys: `name` and `words` of the probe, and `capabilities`, a list of
numbers or null for all. The answer is what probes.py prints, or the traceback. It ends when the
other end of DESCRIPTOR closes. This process itself enters no namespace. Standard library only.
"""

import array
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probes  # type: ignore[import-not-found]  # found next to this file

# From the kernel's uapi headers: sched.h, prctl.h, capability.h.
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 23, 24, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
LONGEST_REQUEST = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """Return the result of a call of libc; OSError where it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def limit_capabilities(kept: list[int]) -> None:
    """Leave this process what `setpriv --bounding-set --inh-caps=-all` leaves root after exec.

    Bounding, permitted and effective set are `kept`, inheritable and ambient set are empty
    (capabilities(7), "Transformation of capabilities during execve()").
    """
    number = 0
    while _libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in kept:
            checked(_libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
        number += 1
    checked(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable
    checked(_libc.capset(header, sets))


def answer(request: dict[str, Any], namespaces: list[int]) -> str:
    """Enter the namespaces, give up the capabilities, and run the probe of one request."""
    for descriptor, kind in zip(namespaces, (CLONE_NEWNET, CLONE_NEWNS), strict=False):
        checked(_libc.setns(descriptor, kind))
        os.close(descriptor)
    if request["capabilities"] is not None:
        limit_capabilities(request["capabilities"])
    return json.dumps(probes.run(request["name"], request["words"]))


def serve_one(outlet: socket.socket) -> bool:
    """Fork the process for one request; return False when there are no more."""
    descriptors = array.array("i")
    data, ancillary, _, _ = outlet.recvmsg(LONGEST_REQUEST, socket.CMSG_SPACE(3 * 4))
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    if not data:
        return False
    if os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        return True
    try:
        outlet.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reply, *namespaces = descriptors
        try:
            text = answer(json.loads(data), namespaces)
        except BaseException:  # noqa: BLE001 - handed over to the process that asked
            text = traceback.format_exc()
        with open(reply, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            stream.write(text)
    finally:
        os._exit(0)


def main() -> None:
    """Serve until the other end closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the probes
    with socket.socket(fileno=int(sys.argv[1])) as outlet:
        while serve_one(outlet):
            pass


if __name__ == "__main__":
    main()
