"""What the report says of the machine, the container and the gateway's process."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.errors import GatewayError
from gateway.system import claim, process

CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
"""The names of all capabilities by their number (linux/capability.h)."""

MODULES: Final = (
    *("wireguard", "nf_tables", "ip_tables", "ip6_tables", "nf_conntrack", "nft_ct", "veth", "tun"),
)
"""What the kernel may have as modules; those that are built in are not always in /sys/module."""

PROGRAMS: Final = (
    ("nft", "--version"),
    ("iptables-legacy", "--version"),
    ("wireguard-go", "--version"),
)

STATUS: Final = {
    "CapEff": "capabilities",
    "CapBnd": "capabilities at most",
    "NoNewPrivs": "no new rights",
    "Seccomp": "seccomp mode",
    "VmRSS": "memory",
    "Threads": "threads",
}
"""The lines of /proc/PID/status that are shown (proc(5)), with what they are called here."""

KUBERNETES: Final = "/var/run/secrets/kubernetes.io"
LIMITS: Final = ("memory.max", "memory.current", "pids.max", "pids.current", "cpu.max")
"""Files of the container's control group (cgroups(7), version 2)."""


def versions() -> Iterator[str]:
    """Yield the versions of the gateway and of what it works with."""
    kernel = platform.uname()
    yield f"portcullis: {__version__}"
    yield f"kernel: {kernel.release} {kernel.version} {kernel.machine}"
    yield f"system: {_system()}"
    yield f"python: {platform.python_version()}"
    for program in PROGRAMS:
        yield f"{program[0]}: {_version(program)}"
    loaded = [name for name in MODULES if Path("/sys/module", name).exists()]
    yield f"kernel modules of {', '.join(MODULES)}: {', '.join(loaded) or 'none is seen'}"
    yield f"/dev/net/tun: {'there' if Path('/dev/net/tun').exists() else 'not there'}"
    yield f"processors: {os.cpu_count()}; load: {_text(Path('/proc/loadavg'))}"
    yield from _matching(Path("/proc/meminfo"), ("MemTotal", "MemAvailable"))


def processes() -> Iterator[str]:
    """Yield what the gateway's process, and this one, may do and use."""
    yield "this command:"
    yield from _process(Path("/proc/self"))
    limits = {name: Path("/sys/fs/cgroup", name) for name in LIMITS}
    shown = [f"{name} {_text(path)}" for name, path in limits.items() if path.exists()]
    yield f"  control group: {', '.join(shown) or 'no limit is seen'}"
    pid = claim.holder()
    if not pid:
        yield "the gateway: its process is not seen from here"
        return
    yield f"the gateway, process {pid}:"
    yield from _process(Path(f"/proc/{pid}"))
    yield f"  open files: {len(os.listdir(f'/proc/{pid}/fd'))}"  # noqa: PTH208 - only their number


def _process(folder: Path) -> Iterator[str]:
    found = dict(line.split(":", 1) for line in (folder / "status").read_text("utf-8").splitlines())
    for name, shown in STATUS.items():
        value = found.get(name, "unknown").strip()
        yield f"  {shown}: {capabilities(int(value, 16)) if name.startswith('Cap') else value}"
    yield f"  user: {found.get('Uid', '?').split()[0]}; AppArmor: {_text(folder / 'attr/current')}"
    yield f"  user namespace: {' '.join(_text(folder / 'uid_map').split())}"


def capabilities(mask: int) -> str:
    """Return the names of the capabilities in a mask as /proc/PID/status has it."""
    known = [name for number, name in enumerate(CAPABILITIES) if mask >> number & 1]
    if len(known) > len(CAPABILITIES) // 2:
        missing = [name for name in CAPABILITIES if name not in known]
        return f"all but {' '.join(missing)}" if missing else "all"
    rest = mask >> len(CAPABILITIES)
    return " ".join([*known, *([f"and others ({rest:#x})"] if rest else [])]) or "none"


def _system() -> str:
    lines = _text(Path("/etc/os-release")).splitlines()
    named = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    engines = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman"}
    inside = [name for file, name in engines.items() if os.access(file, os.F_OK)]
    kubernetes = os.access(KUBERNETES, os.F_OK)  # `Path.exists` fails where we may not look
    where = [*inside, *(["Kubernetes"] if kubernetes else [])]
    return f"{''.join(named) or sys.platform}; in a container of {', '.join(where) or 'none known'}"


def _version(program: tuple[str, ...]) -> str:
    try:
        return process.run(program, timeout=2.0).partition("\n")[0].strip() or "no answer"
    except GatewayError as err:
        return str(err)


def _text(path: Path) -> str:
    """Return the beginning of a small file, or why it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(4096).rstrip("\n\0")
    except OSError as err:
        return f"({err.strerror})"


def _matching(path: Path, names: tuple[str, ...]) -> Iterator[str]:
    yield from (line for line in _text(path).splitlines() if line.startswith(names))
