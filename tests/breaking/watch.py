"""Stops a gateway and its children at their kernel calls, counts them, and breaks one of them.

How? The kernel itself stops each call of a process, but those of calls.PASSES, with a seccomp
filter until we have answered (seccomp_unotify(2), Linux 5.6): go on, or fail with this errno.
Children inherit the filter, so nft and wireguard-go are watched like the gateway, whatever library
makes the call, and code that is written tomorrow is too. A run takes a third longer. Considered and
left out: `strace --inject`, which counts calls of each process by number only, so that "the third
openat" is another file in each run and hits every child as well; an audit hook in the interpreter,
which sees neither libiptc nor setsockopt nor any child.
"""

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.breaking import filtered, places
from tests.breaking.calls import CALLS, PASSES, Call, described, failure
from tests.breaking.ledger import harness, of_the_gateway
from tests.lab.errors import LabError
from tests.lab.process import eventually

NOTIFICATION = struct.Struct("=QII iIQ6Q")
ANSWER = struct.Struct("=QqiI")
RECEIVE, SEND, IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
GO_ON = 1
"""struct seccomp_notif, struct seccomp_notif_resp, SECCOMP_IOCTL_NOTIF_* of linux/seccomp.h."""

SYS_PIDFD_GETFD = 438
TCGETS = 0x5401
HANDOVER_TIME = 10.0
DYING_TIME = 2.0

FAIL, KILL, CRASH = "fails", "gateway killed", "child killed"
"""What can become of a call: it fails; the gateway dies before it; the child that makes it dies."""

BEGIN, START, CONNECT = "begin", "start", "connect"
"""Phases of a start: the interpreter's own, until it is locked, and until it is healthy."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Step:
    """One kernel call of one phase: process, name, and number among the calls of that name."""

    phase: str
    role: str
    """`gateway`, or the name of the child."""
    kind: str
    what: str
    number: int
    call: str
    place: str = field(default="", compare=False)
    """Where in the gateway's code it was when the steps were counted, the innermost call first."""
    logged: int = field(default=0, compare=False)
    """How many lines places.py had logged by then; see `Watch.files`."""
    files: frozenset[str] = field(default=frozenset(), compare=False)
    """The code on which it depends; see ledger.py."""

    def __str__(self) -> str:
        """Name the step."""
        place = f" at {self.place}" if self.place else ""
        return f"{self.phase}: {self.role}: {self.kind}: {self.what} (no. {self.number}){place}"


@dataclass(frozen=True)
class Break:
    """One step, and what becomes of it."""

    step: Step
    how: str

    def __str__(self) -> str:
        """Name the break."""
        return f"{self.step}: {self.how}"


class Watch:
    """Watches one run of the gateway, from its first call to the end of its last child."""

    def __init__(self, directory: Path, before: Callable[[], None]) -> None:
        """Wait at a socket in `directory`; `before` is called right before a step is broken."""
        self.path = directory / f"watch{time.monotonic_ns()}"
        self._places = self.path.with_suffix(".places")
        self.phase: str | None = None
        self.steps: list[Step] = []
        self.broken_at: float | None = None
        self.error: Exception | None = None
        self._before = before
        self._wanted: Break | None = None
        self._counted: Counter[tuple[str, str, str]] = Counter()
        self._roles: dict[int, tuple[str, int]] = {}
        self._files: dict[int, frozenset[str]] = {}
        self._main = 0
        self._entrance = socket.socket(socket.AF_UNIX)
        self._entrance.bind(str(self.path))
        self._entrance.listen(1)
        self._entrance.settimeout(HANDOVER_TIME)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def command(self, argv: list[str]) -> list[str]:
        """Return the argument list that runs `argv` (an absolute path first) watched."""
        numbers = ",".join(map(str, PASSES))
        return [sys.executable, "-I", "-S", filtered.__file__, str(self.path), numbers, *argv]

    def locating(self, program: Sequence[str]) -> list[str]:
        """Return the argument list that runs `program` so that it reports where it is.

        It is the gateway's package, with its arguments.
        """
        self._places.write_bytes(b"\n" * places.WHOLE)
        argv = [sys.executable, places.__file__, str(self._places), *program]
        return self.command(argv)

    def arm(self, phase: str, wanted: Break | None = None) -> None:
        """Begin to count the steps of `phase`, and to look out for the one to break."""
        self._counted.clear()
        self._wanted = wanted
        self.broken_at = None
        self.phase = phase

    def disarm(self) -> None:
        """Let everything pass."""
        self.phase = self._wanted = None

    def files(self, logged: int) -> frozenset[str]:
        """Return the code on which a step depends, by how much had been logged then; see ledger.py.

        To be asked when the run is over: only then it is known what never runs.
        """
        if logged not in self._files:
            text = self._places.read_bytes()[places.LOG :].decode()
            lines = [line.split() for line in text.splitlines() if line]
            by_then, ever = (
                {file for word, file in some if word == "ran"} for some in (lines[:logged], lines)
            )
            self._files[logged] = harness() | by_then | (of_the_gateway() - ever)
        return self._files[logged]

    def raise_error(self) -> None:
        """Raise what went wrong on the watching thread."""
        if self.error is not None:
            raise LabError(f"the watch failed: {self.error!r}") from self.error

    # -- on the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            listener = self._take_over()
        except (OSError, LabError) as err:
            self.error = err
            return
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        while not any(event & select.POLLHUP for _, event in poller.poll()):
            self._answer(listener)
        os.close(listener)

    def _take_over(self) -> int:
        """Take the listener's descriptor from the process that has just installed its filter."""
        with self._entrance, self._entrance.accept()[0] as channel:
            channel.settimeout(HANDOVER_TIME)
            credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            self._main = struct.unpack("iII", credentials)[0]
            listener = _descriptor_of(self._main, self._number_of_the_listener())
            channel.send(b"\n")
        self.path.unlink()
        return listener

    def _number_of_the_listener(self) -> int:
        descriptors = Path(f"/proc/{self._main}/fd")
        return eventually(
            lambda: next(
                (int(it.name) for it in descriptors.iterdir() if "seccomp" in str(it.readlink())),
                None,
            ),
            timeout=HANDOVER_TIME,
            what="the filter",
            interval=0.001,
        )

    def _answer(self, listener: int) -> None:
        buffer = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, RECEIVE, buffer)
        except OSError:  # it has died meanwhile
            return
        identity, task, _, number, _, _, *arguments = NOTIFICATION.unpack(buffer)
        try:
            error = self._decide(task, CALLS.get(number, f"call {number}"), tuple(arguments))
        except Exception as err:  # noqa: BLE001 - handed over to the thread that asks for it
            if _still_waits(listener, identity):
                self.error = err
            error = 0
        try:
            go_on = 0 if error else GO_ON
            fcntl.ioctl(listener, SEND, ANSWER.pack(identity, 0, -error, go_on))
        except OSError:  # it has died meanwhile
            return

    def _decide(self, task: int, name: str, arguments: tuple[int, ...]) -> int:
        """Count a stopped call; return the errno with which it is to fail, or 0."""
        if self.phase is None:
            return 0
        role, process = self._role(task)
        call = Call(
            name,
            arguments,
            lambda start, length: _memory(task, start, length),
            lambda number: str(Path(f"/proc/{task}/fd/{number}").readlink()),
            lambda number: _descriptor_of(process, number),
        )
        if _is_data_of_the_tunnel(role, name) or _asks_for_a_terminal(call):
            return 0
        kind, what = described(call)
        if self.phase == BEGIN and name == "pipe2":
            self._next_phase(START)
        self._counted[role, kind, what] += 1
        number = self._counted[role, kind, what]
        place, logged = self._place(role)
        step = Step(self.phase, role, kind, what, number, name, place, logged)
        self.steps.append(step)
        error = 0
        if self._wanted and self._wanted.step == step and self.broken_at is None:
            error = self._break(self._wanted.how, process, name)
        if name == "execve":
            self._roles.pop(task, None)
        says = call.read(arguments[1], 4096) if kind == "output" else b""
        if self.phase == START and b'"locked"' in says:
            self._next_phase(CONNECT)
        return error

    def _place(self, role: str) -> tuple[str, int]:
        """Return where the gateway says that it is, and how many modules it has logged.

        Its children say nothing of their own place.
        """
        if not self._places.exists():
            return "", 0
        with self._places.open("rb") as file:
            reported = file.read(places.LOG)
        place = reported[: places.SIZE] if role in {"gateway", "child to be"} else b""
        return place.decode().partition("\n")[0], int(reported[places.SIZE :].strip() or b"0")

    def _next_phase(self, phase: str) -> None:
        self._counted.clear()
        self.phase = phase

    def _break(self, how: str, process: int, name: str) -> int:
        self._before()
        self.broken_at = time.monotonic()
        if how == FAIL:
            return failure(name)
        os.kill(process if how == CRASH else self._main, signal.SIGKILL)
        if how == KILL and process != self._main:
            self._wait_for_death()
        return 0

    def _wait_for_death(self) -> None:
        """Wait until the gateway is no more, so that its child continues as an orphan."""
        deadline = time.monotonic() + DYING_TIME
        stat = Path(f"/proc/{self._main}/stat")
        while time.monotonic() < deadline:
            try:
                if stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] in "ZX":
                    return
            except OSError:
                return
            time.sleep(0.0005)

    def _role(self, task: int) -> tuple[str, int]:
        """Return who the task is, and its process id."""
        if task not in self._roles:
            lines = Path(f"/proc/{task}/status").read_text(encoding="utf-8").splitlines()
            fields = dict(line.partition(":\t")[::2] for line in lines)
            process, name = int(fields["Tgid"]), fields["Name"]
            if process == self._main:
                name = "gateway"
            elif name.startswith("python"):
                name = "child to be"
            self._roles[task] = (name, process)
        return self._roles[task]


def _still_waits(listener: int, identity: int) -> bool:
    """Return whether a stopped call still waits for its answer: its maker has not died meanwhile.

    A task that is killed leaves its call before it gives up its memory and its descriptors
    (kernel/seccomp.c, seccomp_do_user_notification), while it is in /proc for longer.
    """
    try:
        fcntl.ioctl(listener, IS_VALID, struct.pack("=Q", identity))
    except OSError:
        return False
    return True


def _is_data_of_the_tunnel(role: str, call: str) -> bool:
    """Return whether a call is WireGuard's business with packets, of which there is no end."""
    return role == "wireguard-go" and call in DATA


DATA = {"write", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "epoll_ctl"}
"""The calls by which it moves packets."""


def _asks_for_a_terminal(call: Call) -> bool:
    """Return whether a call is the one that Python makes for each file that it opens, in vain."""
    return call.name == "ioctl" and call.arguments[1] == TCGETS


def _memory(task: int, start: int, length: int) -> bytes:
    with Path(f"/proc/{task}/mem").open("rb", buffering=0) as memory:
        memory.seek(start)
        return memory.read(length)


def _descriptor_of(process: int, number: int) -> int:
    """Return a descriptor of our own for descriptor `number` of `process` (pidfd_getfd(2))."""
    handle = os.pidfd_open(process)
    try:
        own: int = _libc.syscall(SYS_PIDFD_GETFD, handle, number, 0)
    finally:
        os.close(handle)
    if own < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return own
