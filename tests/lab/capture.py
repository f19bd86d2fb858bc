"""What leaves the gateway: every frame received at the far end of its link."""

import bisect
import json
import sys
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from tests.lab import recorder
from tests.lab.errors import LabError
from tests.lab.frames import Frame, Judgement, leaks, parse
from tests.lab.process import Household, eventually

BUFFER = 512 << 20
"""Octets that may wait for the recorder; a limit, not an allocation."""


class Capture:
    """A recording of the frames that one link receives.

    The recorder is a process of its own. Everything asked here first waits until the frames
    that have already arrived are in the file; if the kernel dropped one, asking raises LabError,
    because a capture with holes proves nothing.
    """

    def __init__(
        self,
        link: str,
        household: Household,
        *,
        enter: Callable[[Sequence[str]], list[str]] = list,
        neighbours: Judgement | None = None,
        buffer: int = BUFFER,
    ) -> None:
        """Start recording on `link`.

        `enter` turns an argument list into one that runs where the link is (the `command` of a
        Namespace); `neighbours` decides which ARP and neighbour discovery frames belong there;
        `buffer` is in octets.
        """
        self.link = link
        self._neighbours = neighbours
        self._path = household.file(f"{link}.frames")
        self._offset = 0
        self._synced = 0
        self._frames: list[Frame] = []
        script = [sys.executable, "-I", "-S", recorder.__file__, link, str(self._path), str(buffer)]
        self._child = household.start(enter(script), f"{link}.recorder")
        self._child.wait_for("ready")

    def frames(self, since: float = 0.0, until: float | None = None) -> list[Frame]:
        """Return the frames received from `since` on, seconds on the monotonic clock."""
        self._read()
        first = bisect.bisect_left(self._frames, since, key=lambda frame: frame.at)
        last = (
            len(self._frames)
            if until is None
            else bisect.bisect_right(self._frames, until, key=lambda frame: frame.at)
        )
        return self._frames[first:last]

    def containing(self, marker: str, since: float = 0.0) -> list[Frame]:
        """Return the frames that carry `marker` unencrypted anywhere."""
        wanted = marker.encode()
        return [frame for frame in self.frames(since) if wanted in frame.raw]

    def leaks(self, allowed: Collection[Judgement] = (), since: float = 0.0) -> list[Frame]:
        """Return the frames that are neither neighbour discovery on the link nor `allowed`."""
        always = [] if self._neighbours is None else [self._neighbours]
        return leaks(self.frames(since), [*always, *allowed])

    def wait_for(self, judge: Judgement, *, since: float = 0.0, timeout: float = 5) -> Frame:
        """Wait for a frame that `judge` accepts; LabError when none comes."""
        return eventually(
            lambda: next((frame for frame in self.frames(since) if judge(frame)), None),
            timeout=timeout,
            what=f"a frame on {self.link}",
            interval=0.02,
        )

    def quiet_for(self, seconds: float, allowed: Collection[Judgement] = ()) -> list[Frame]:
        """Listen for `seconds` from now on and return the leaks of that time."""
        since = monotonic()
        eventually(lambda: monotonic() - since > seconds, timeout=seconds + 1, what="the clock")
        return self.leaks(allowed, since)

    def close(self) -> None:
        """Stop recording."""
        self._child.close()

    def _read(self) -> None:
        self._sync()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        position = 0
        while position + recorder.RECORD.size <= len(data):
            at, kernel, size = recorder.RECORD.unpack_from(data, position)
            start = position + recorder.RECORD.size
            if start + size > len(data):
                break
            self._frames.append(parse(data[start : start + size], at=at / 1e9, kernel_ns=kernel))
            position = start + size
        self._offset += position
        # Two processors may hand in frames a few microseconds out of order.
        self._frames.sort(key=lambda frame: frame.at)

    def _sync(self) -> None:
        if self._child.exit_code is not None:
            raise LabError(f"the recorder of {self.link} has ended:\n{self._child.output()}")
        self._child.send("sync")
        self._synced += 1
        answers = eventually(
            lambda: (
                lines
                if len(lines := self._child.output().splitlines()) > self._synced
                and lines[self._synced].endswith("}")
                else None
            ),
            timeout=20,
            what=f"the recorder of {self.link}",
            interval=0.002,
        )
        drops = json.loads(answers[self._synced])["drops"]
        if drops:
            raise LabError(f"the capture on {self.link} lost {drops} frames")
