"""What an interface that appears later may let out: see docs/known-issues.md.

Ordinary sockets get nothing out of it, ever. Packet sockets neither, where the kernel takes a rule
for a device that is not there yet; elsewhere they have until the gateway has heard of it.
"""

import platform
from collections.abc import Sequence

from tests.lab.frames import Frame
from tests.lab.process import PATIENCE

CLOSED_AFTER = 1.0 * PATIENCE
"""Seconds until an interface that was not foreseeable is guarded; `pytest -rP` prints them."""


def knows_absent_devices() -> bool:
    """Return whether the kernel takes a chain for a device that is not there yet (Linux 6.16)."""
    major, minor = platform.release().split("-")[0].split(".")[:2]
    return (int(major), int(minor)) >= (6, 16)


def from_packet_socket(frame: Frame) -> bool:
    """Return whether a flood (traffic.py) sent this frame by a packet socket."""
    return b" packet4 " in frame.raw or b" packet6 " in frame.raw


def too_many(frames: Sequence[Frame], *, foreseen: bool | None = None) -> list[Frame]:
    """Return those of a late link's frames that should not have come out, oldest first.

    `foreseen` says whether the guard stood before the link, by default what this kernel can. Where
    it did not, packet sockets have CLOSED_AFTER seconds from the first frame of theirs.
    """
    if knows_absent_devices() if foreseen is None else foreseen:
        return list(frames)
    packets = [frame.at for frame in frames if from_packet_socket(frame)]
    closed = min(packets, default=0.0) + CLOSED_AFTER
    return [frame for frame in frames if not from_packet_socket(frame) or frame.at > closed]
