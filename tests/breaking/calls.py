"""The kernel calls that are broken, in words: which kind, done to what, and how they fail.

Those that are not broken are listed: every other one is.

Pure but for reading the memory and the descriptors of the process that has stopped in a call.
"""

import errno
import os
import re
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

CALLS = {
    1: "write", 16: "ioctl", 20: "writev", 22: "pipe", 41: "socket", 42: "connect", 44: "sendto",
    45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 48: "shutdown", 49: "bind", 50: "listen",
    51: "getsockname", 53: "socketpair", 54: "setsockopt", 55: "getsockopt", 56: "clone",
    57: "fork", 58: "vfork", 59: "execve", 62: "kill", 72: "fcntl", 73: "flock", 74: "fsync",
    77: "ftruncate", 82: "rename", 83: "mkdir", 87: "unlink", 90: "chmod", 91: "fchmod",
    109: "setpgid", 126: "capset", 157: "prctl", 217: "getdents64", 233: "epoll_ctl",
    254: "inotify_add_watch", 257: "openat", 258: "mkdirat", 263: "unlinkat", 264: "renameat",
    268: "fchmodat", 288: "accept4", 290: "eventfd2", 291: "epoll_create1", 293: "pipe2",
    294: "inotify_init1", 299: "recvmmsg", 307: "sendmmsg", 324: "membarrier", 434: "pidfd_open",
    435: "clone3", 437: "openat2",
}  # fmt: skip
"""Names of the system calls that stop, by number (x86-64); one that is not here stops as well."""

PASSES = {
    0: "read", 3: "close", 5: "fstat", 7: "poll", 8: "lseek", 9: "mmap", 10: "mprotect",
    11: "munmap", 12: "brk", 13: "rt_sigaction", 14: "rt_sigprocmask", 15: "rt_sigreturn",
    17: "pread64", 21: "access", 23: "select", 24: "sched_yield", 25: "mremap", 28: "madvise",
    32: "dup", 33: "dup2", 34: "pause", 35: "nanosleep", 37: "alarm", 39: "getpid",
    52: "getpeername", 60: "exit", 61: "wait4", 63: "uname", 79: "getcwd", 89: "readlink",
    96: "gettimeofday", 97: "getrlimit", 98: "getrusage", 99: "sysinfo", 102: "getuid",
    104: "getgid", 107: "geteuid", 108: "getegid", 110: "getppid", 111: "getpgrp", 125: "capget",
    131: "sigaltstack", 137: "statfs", 138: "fstatfs", 158: "arch_prctl", 186: "gettid",
    202: "futex", 203: "sched_setaffinity", 204: "sched_getaffinity", 218: "set_tid_address",
    219: "restart_syscall", 228: "clock_gettime", 229: "clock_getres", 230: "clock_nanosleep",
    231: "exit_group", 232: "epoll_wait", 234: "tgkill", 247: "waitid", 262: "newfstatat",
    267: "readlinkat", 269: "faccessat", 270: "pselect6", 271: "ppoll", 273: "set_robust_list",
    281: "epoll_pwait", 292: "dup3", 302: "prlimit64", 318: "getrandom", 332: "statx",
    334: "rseq", 436: "close_range", 439: "faccessat2", 441: "epoll_pwait2",
}  # fmt: skip
"""The system calls that are never broken, by number: there are thousands of them in a run, or they
hardly ever fail. They wait; they read, duplicate or close what another call has opened; they look
at files and at the process itself; they manage its memory, its threads and its signal handlers."""

ERRORS = {
    "write": errno.EIO, "writev": errno.EIO, "ioctl": errno.EPERM, "connect": errno.ECONNREFUSED,
    "sendto": errno.ENOBUFS, "sendmsg": errno.ENOBUFS, "recvfrom": errno.ENOBUFS,
    "recvmsg": errno.ENOBUFS, "bind": errno.EADDRINUSE, "listen": errno.EADDRINUSE,
    "execve": errno.EACCES, "clone": errno.EAGAIN, "fork": errno.EAGAIN, "vfork": errno.EAGAIN,
    "clone3": errno.EAGAIN, "openat": errno.EMFILE, "socket": errno.EMFILE, "pipe": errno.EMFILE,
    "pipe2": errno.EMFILE, "socketpair": errno.EMFILE, "accept4": errno.EMFILE,
    "unlink": errno.EROFS, "unlinkat": errno.EROFS, "mkdir": errno.EROFS, "mkdirat": errno.EROFS,
    "rename": errno.EROFS, "renameat": errno.EROFS, "chmod": errno.EROFS, "fchmod": errno.EROFS,
    "fchmodat": errno.EROFS, "ftruncate": errno.EIO, "flock": errno.ENOLCK,
    "getdents64": errno.EIO, "membarrier": errno.ENOSYS, "prctl": errno.EINVAL,
    "shutdown": errno.ENOTCONN, "getsockname": errno.ENOBUFS, "kill": errno.EPERM,
    "fcntl": errno.EMFILE, "fsync": errno.EIO, "setpgid": errno.EPERM, "capset": errno.EPERM,
    "inotify_init1": errno.EMFILE, "inotify_add_watch": errno.ENOSPC, "recvmmsg": errno.ENOBUFS,
    "sendmmsg": errno.ENOBUFS, "pidfd_open": errno.EMFILE, "openat2": errno.EMFILE,
}  # fmt: skip
"""How each call fails; the others for want of memory."""

KINDS = {
    "child process": {
        "clone", "fork", "vfork", "clone3", "execve", "prctl", "kill", "setpgid", "capset",
        "pidfd_open",
    },
    "file": {
        "openat", "flock", "ftruncate", "rename", "renameat", "mkdir", "mkdirat", "unlink",
        "unlinkat", "chmod", "fchmod", "fchmodat", "getdents64", "write", "writev", "fcntl",
        "fsync", "openat2", "inotify_init1", "inotify_add_watch",
    },
    "socket": {
        "socket", "connect", "sendto", "recvfrom", "sendmsg", "recvmsg", "bind", "listen",
        "socketpair", "setsockopt", "getsockopt", "accept4", "shutdown", "getsockname",
        "recvmmsg", "sendmmsg",
    },
    "device": {"ioctl"},
}  # fmt: skip

ON_SOCKETS = KINDS["socket"] - {"socket", "socketpair", "getsockname"}
ON_DESCRIPTORS = {
    "write", "writev", "flock", "ftruncate", "fchmod", "getdents64", "ioctl", "fsync",
}  # fmt: skip
NUMBER_ARGUMENT = {"prctl": 0, "kill": 1, "fcntl": 1}
"""What distinguishes calls that look alike: the option, the signal, the command."""
PATH_ARGUMENT = {
    "openat": 1, "mkdirat": 1, "unlinkat": 1, "renameat": 1, "fchmodat": 1, "execve": 0,
    "rename": 0, "mkdir": 0, "unlink": 0, "chmod": 0, "openat2": 1, "inotify_add_watch": 1,
}  # fmt: skip

SOL_IP, SOL_IPV6 = 0, 41
TABLE_OPTIONS = {64: "REPLACE", 65: "ADD_COUNTERS"}
TABLE_QUESTIONS = {64: "INFO", 65: "ENTRIES"}
"""IPT_SO_SET_* and IPT_SO_GET_* of linux/netfilter_ipv4/ip_tables.h; IPv6 has the same numbers."""

NETFILTER = 12
PROTOCOLS = {0: "route", NETFILTER: "netfilter", 16: "generic"}
ROUTE_MESSAGES = {
    16: "NEWLINK", 17: "DELLINK", 18: "GETLINK", 19: "SETLINK", 20: "NEWADDR", 21: "DELADDR",
    22: "GETADDR", 24: "NEWROUTE", 25: "DELROUTE", 26: "GETROUTE", 32: "NEWRULE", 33: "DELRULE",
    34: "GETRULE",
}  # fmt: skip
NETFILTER_SUBSYSTEMS = {1: "conntrack", 10: "nftables"}
NFTABLES_MESSAGES = {
    0: "NEWTABLE", 1: "GETTABLE", 2: "DELTABLE", 3: "NEWCHAIN", 4: "GETCHAIN", 5: "DELCHAIN",
    6: "NEWRULE", 7: "GETRULE", 8: "DELRULE", 16: "GETGEN", 19: "GETOBJ",
}  # fmt: skip
BATCH_BEGIN = 16
HEADER = struct.Struct("=IHHII")
"""rtnetlink(7), linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, netlink(7)."""

PYTHON = tuple(
    {f"{sys.prefix}/", f"{Path(sys.prefix).resolve()}/", f"{sys.base_prefix}/lib/python3"}
    | {str(PROJECT / "gateway"), "/etc/python"}
)
LIBRARY = re.compile(r"\.so(\.|$)|/ld\.so\.|/gconv/|/locale/|/lib/terminfo|/x86_64-linux-gnu/")
SETTINGS = re.compile(
    r"/etc/(iproute2/|connlabel\.conf|nsswitch\.conf|localtime|protocols|gai\.conf)"
    r"|/usr/lib/ssl/|/sys/devices/system/cpu/|/sys/kernel/mm/"
)
"""What libraries look up of their own accord."""


@dataclass(frozen=True)
class Call:
    """A stopped call: who makes it, by name, arguments, and a way to read the maker's memory."""

    name: str
    arguments: tuple[int, ...]
    read: Callable[[int, int], bytes]
    link: Callable[[int], str]
    """What /proc/PID/fd/N points to."""
    open: Callable[[int], int]
    """A descriptor of our own for one of the maker's."""


def described(call: Call) -> tuple[str, str]:
    """Return kind and words for a stopped call, the same words for the same step in each run."""
    if call.name in ON_SOCKETS:
        return _on_socket(call)
    kind = next((kind for kind, names in KINDS.items() if call.name in names), "other")
    if call.name in PATH_ARGUMENT:
        return kind, f"{call.name} {_named(_text(call, PATH_ARGUMENT[call.name]))}"
    if call.name == "socket":
        family, type_, protocol = (_signed(value) for value in call.arguments[:3])
        return kind, f"socket {_socket_name(family, type_, protocol)}"
    if call.name in ON_DESCRIPTORS:
        return _on_descriptor(call, kind)
    if call.name in NUMBER_ARGUMENT:
        return kind, f"{call.name} {_signed(call.arguments[NUMBER_ARGUMENT[call.name]])}"
    return kind, call.name


def failure(call: str) -> int:
    """Return the errno with which the call `call` fails."""
    return ERRORS.get(call, errno.ENOMEM)


def _on_descriptor(call: Call, kind: str) -> tuple[str, str]:
    number = _signed(call.arguments[0])
    if call.name in {"write", "writev"} and number in {1, 2}:
        return "output", "write a line"
    detail = f" {call.arguments[1]:#x}" if call.name == "ioctl" else ""
    try:
        name = _named(call.link(number))
    except FileNotFoundError:  # another thread has closed it meanwhile
        name = "(closed)"
    return kind, f"{call.name}{detail} {name}"


def _kind_of(descriptor: int) -> tuple[int, int, int]:
    """Return family, type and protocol of a socket, and close it. Raises OSError.

    One of AF_XDP has no address that could be asked for, so Python makes no object of it. To keep
    it open would keep its queue from the gateway that comes next.
    """
    try:
        channel = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    with channel:
        return channel.family, channel.type, channel.proto


def _on_socket(call: Call) -> tuple[str, str]:
    try:
        family, type_, protocol = _kind_of(call.open(_signed(call.arguments[0])))
    except OSError:
        return "socket", f"{call.name} on something else"
    name = _socket_name(family, type_, protocol)
    if call.name in {"setsockopt", "getsockopt"}:
        level, option = (_signed(value) for value in call.arguments[1:3])
        tables = TABLE_OPTIONS if call.name == "setsockopt" else TABLE_QUESTIONS
        if level in {SOL_IP, SOL_IPV6} and option in tables and type_ == socket.SOCK_RAW:
            version = 6 if level == SOL_IPV6 else 4
            kind = "table commit" if call.name == "setsockopt" else "table read"
            return kind, f"{tables[option]} IPv{version} {_text_at(call, call.arguments[3], 32)}"
        detail = f" {level}/{option}" if call.name == "setsockopt" else ""
        return "socket", f"{call.name}{detail} {name}"
    if family == socket.AF_NETLINK and call.name in {"sendto", "sendmsg"}:
        return "netlink message", f"{name} {_messages(_payload(call), protocol)}"
    kind = "netlink answer" if family == socket.AF_NETLINK and "recv" in call.name else "socket"
    return kind, f"{call.name} {name}"


def _socket_name(family: int, type_: int, protocol: int) -> str:
    if family == socket.AF_NETLINK:
        return f"netlink {PROTOCOLS.get(protocol, protocol)}"
    names: dict[int, str] = {
        socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "unix",
        socket.AF_PACKET: "packet",
    }  # fmt: skip
    types: dict[int, str] = {
        socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "datagram", socket.SOCK_RAW: "raw",
    }  # fmt: skip
    return f"{names.get(family, family)} {types.get(type_ & 0xF, type_)}"


def _payload(call: Call) -> bytes:
    """Return what the call sends: its buffer, or the first part of its message (sendmsg(2))."""
    if call.name == "sendto":
        return call.read(call.arguments[1], min(call.arguments[2], 1 << 16))
    vector = struct.unpack_from("P", call.read(call.arguments[1], 24), 16)[0]
    start, length = struct.unpack("PN", call.read(vector, 16))
    return call.read(start, min(length, 1 << 16))


def _messages(data: bytes, protocol: int) -> str:
    """Return the names of the netlink messages in `data`, each once, in order."""
    names: dict[str, None] = {}
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        if protocol == 0:
            names[ROUTE_MESSAGES.get(kind, str(kind))] = None
        elif protocol == NETFILTER and kind > BATCH_BEGIN + 1:
            subsystem, number = kind >> 8, kind & 0xFF
            word = NFTABLES_MESSAGES.get(number, str(number)) if subsystem == 10 else str(number)
            names[f"{NETFILTER_SUBSYSTEMS.get(subsystem, subsystem)} {word}"] = None
        elif protocol != NETFILTER:
            names[str(kind)] = None
        offset += max(length, HEADER.size) + -length % 4
    return " + ".join(names) or "(empty)"


def _named(path: str) -> str:
    """Return words for `path` that are the same in each run; the many of a sort have one name."""
    if path.startswith(PYTHON) or "/__pycache__" in path:
        return "a Python module"
    if LIBRARY.search(path):
        return "a library"
    if SETTINGS.match(path):
        return "a setting of a library"
    path = re.sub(r"/proc/(self|thread-self|\d+)(/task/\d+)?", "/proc/N", path)
    return re.sub(r"(socket|pipe|anon_inode):.*|^/tmp/.*", r"(\1)", path)


def _text(call: Call, argument: int) -> str:
    return _text_at(call, call.arguments[argument], os.pathconf("/", "PC_NAME_MAX"))


def _text_at(call: Call, address: int, length: int) -> str:
    return call.read(address, length).split(b"\0")[0].decode(errors="replace")


def _signed(value: int) -> int:
    return struct.unpack("i", struct.pack("I", value & 0xFFFFFFFF))[0]  # type: ignore[no-any-return]
