"""Every error that the gateway raises on purpose.

GatewayError
├── ConfigError          the configuration is wrong: all problems at once (exit code 2)
├── NotClosedError       the gateway ends and could not put the closed rules into force
├── StoppedError         a stop was asked for while the gateway waited for a shortage to end
├── KernelError          a call to the kernel failed; keeps errno and the object
│   ├── FirewallError    the ruleset is not in force as wanted
│   ├── TunnelError      the WireGuard interface is not as wanted
│   │   └── TunnelGone   there is no such interface (any more)
│   └── NetworkError     links, addresses, routes, rules, neighbours, connection tracking
├── MissingError         a capability, device or kernel feature is missing: `remedy` says what to do
└── ProcessError         a program could not be started, failed, or took too long
    └── ProcessEnded     a program that was to stay has ended

Adapters translate foreign exceptions into these where they call the library
(`tests/unit/test_foreign_errors.py` lists them). `cli` and the other commands turn them into exit
codes; `__main__` turns any other exception into 1.

A shortage is different from a refusal. A fork or a socket that the kernel cannot give now says
nothing about the rules: what was in force stays in force, and the same call may succeed in a
second. `is_shortage` distinguishes the two, also for foreign exceptions.
"""

import errno
from dataclasses import dataclass
from enum import StrEnum

SHORTAGES = frozenset(
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ETIMEDOUT,
        errno.EINTR,
    }
)
"""Error numbers that mean "not now": processes, memory, descriptors, buffers or time ran out
(errno(3), fork(2), socket(2))."""


def is_shortage(error: BaseException) -> bool:
    """Return whether `error` means that something could not be done now, and may be later.

    Any other error of the kernel is an answer.
    """
    return isinstance(error, MemoryError | TimeoutError) or (
        isinstance(error, OSError | KernelError | ProcessError) and error.errno in SHORTAGES
    )


class GatewayError(Exception):
    """The base of every error that the gateway raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the configuration: where, what, and what to do about it.

    `where` is the variable or file; `message` never holds a secret value.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Weight(StrEnum):
    """How much a notice matters; the values are the levels of the log."""

    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True)
class Notice:
    """A remark about a variable or file that does not keep the gateway from starting; no secret."""

    weight: Weight
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigError(GatewayError):
    """The configuration is wrong; `problems` has every fault found, in order.

    `notices` are the other remarks; often they explain the fault.
    """

    def __init__(self, problems: tuple[Problem, ...], notices: tuple[Notice, ...] = ()) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
        self.notices = notices


class NotClosedError(GatewayError):
    """The gateway ends, and the closed rules are not in force; the message names what holds."""


class StoppedError(GatewayError):
    """A stop was asked for before the gateway could begin; the namespace is closed."""


class KernelError(GatewayError):
    """A call to the kernel failed: `what` was tried on `subject` (an interface, rule or path)."""

    def __init__(self, what: str, subject: str = "", errno: int | None = None) -> None:
        super().__init__(f"{what}: {subject}" if subject else what)
        self.what = what
        self.subject = subject
        self.errno = errno


class FirewallError(KernelError):
    """The ruleset is not in force as wanted; the kernel holds the former one or a stricter one."""


class TunnelError(KernelError):
    """The WireGuard interface could not be made, set or read."""


class TunnelGone(TunnelError):  # noqa: N818 - a state of the world more than a fault
    """There is no such WireGuard interface (any more)."""


class NetworkError(KernelError):
    """Links, addresses, routes, rules, neighbours or connection tracking are not as wanted."""


class LoginError(NetworkError):
    """A VPN provider does not accept the user's name and password."""


KERNEL = (KernelError, OSError, MemoryError)
"""What a call to the kernel raises, through our adapters or through Python itself."""


class MissingError(GatewayError):
    """This machine lacks something that the gateway needs; `remedy` says what to do."""

    def __init__(self, missing: str, remedy: str) -> None:
        super().__init__(f"{missing}; {remedy}")
        self.missing = missing
        self.remedy = remedy


class ProcessError(GatewayError):
    """A program could not be started, failed, or took too long; `stderr` is its error output.

    `errno` is set when the reason was a shortage, or the system call that failed has one.
    """

    def __init__(
        self, program: str, message: str, stderr: str = "", errno: int | None = None
    ) -> None:
        super().__init__(
            f"{program}: {message}" + (f": {stderr.strip()}" if stderr.strip() else "")
        )
        self.program = program
        self.stderr = stderr
        self.errno = errno


class ProcessEnded(ProcessError):  # noqa: N818 - a state of the world more than a fault
    """A program that was to stay has ended: `code` is its exit code, negative for a signal."""

    def __init__(self, program: str, message: str, last_lines: str = "", *, code: int) -> None:
        super().__init__(program, message, last_lines)
        self.code = code


_NOT_ALLOWED = (
    "give the container `cap_add: [NET_ADMIN]`, and no seccomp or AppArmor profile that forbids it"
)
_NO_WAY = "attach the container to a network that leads there"
_TOO_MANY = "raise `ulimits: {nofile: ...}` of the container"
_NO_ROOM = "make room, or mount a volume there"
REMEDIES = {
    errno.EPERM: _NOT_ALLOWED,
    errno.EACCES: _NOT_ALLOWED,
    errno.EADDRINUSE: "another program has it; the gateway tries another one",
    errno.EEXIST: "another program has made one of that name: remove it",
    errno.EOPNOTSUPP: "the kernel lacks this: `gateway doctor` lists what it has",
    errno.EPROTONOSUPPORT: "the kernel lacks this: `gateway doctor` lists what it has",
    errno.EAFNOSUPPORT: "the kernel has no IPv6 here: leave the IPv6 addresses out, or load it",
    errno.ENETUNREACH: _NO_WAY,
    errno.EHOSTUNREACH: _NO_WAY,
    errno.EAGAIN: "raise `pids_limit` of the container, or what this machine allows",
    errno.ENOMEM: "raise `mem_limit` of the container, or free memory",
    errno.ENOBUFS: "raise `mem_limit` of the container, or free memory",
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: "too many files are open on this machine: raise fs.file-max",
    errno.ENOSPC: _NO_ROOM,
    errno.EROFS: _NO_ROOM,
}
"""What a person can do about an error of the kernel, by its number (errno(3))."""


def explained(error: BaseException) -> str:
    """Return what `error` says, and what to do about it where its number says that."""
    text = str(error) or type(error).__name__
    remedy = REMEDIES.get(getattr(error, "errno", None) or 0)
    if remedy is _NOT_ALLOWED and not isinstance(error, FirewallError | TunnelError):
        return text  # our own rules refuse packets in this way, too
    return f"{text}; {remedy}" if remedy else text
