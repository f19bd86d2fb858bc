"""The guest's root file system: Debian with the project's dependencies, built once and cached.

Built without loop devices: debootstrap fills a directory, mke2fs copies it into a file. A cached
image is found by what it was made of, this file included. What changes with every edit, the project
itself and its tests, is not in here but on the guest's second disk (project.py).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

SUITE = "trixie"
PACKAGES = (
    "linux-image-cloud-amd64",
    "python3",
    "python3-venv",
    # What the gateway's image has.
    "iptables",
    "nftables",
    "unbound",
    "wireguard-go",
    # What the lab uses.
    "conntrack",
    "iproute2",
    "iputils-ping",
    "procps",
    "tcpdump",
    "wireguard-tools",
    # python-iptables is published as source only.
    "gcc",
    "libc6-dev",
    "python3-dev",
)
TEST_TOOLS = ("iniconfig", "packaging", "pluggy", "pygments", "pytest", "pytest-timeout")
"""Packages of requirements-dev.lock that a test run needs; linters stay outside."""
PROGRAMS = ("debootstrap", "mke2fs", "qemu-system-x86_64", "setpriv")
ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/opt/portcullis"
"""The guest's virtual environment: dependencies from the locks, later the project's wheel."""

_ROOM = 512  # MiB free on the root, which is thrown away after each run
_KEEP = 14 * 24 * 3600  # seconds that an unused image stays
_INIT = """#!/bin/sh
mount -t ext4 /dev/vdb /srv && exec /srv/init
"""

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """Files of one built image."""

    disk: Path
    kernel: Path
    initrd: Path
    build_tools: Path
    """Directory with the locked setuptools, which builds the project's wheel on the host."""


def obstacle() -> str | None:
    """Return why this machine cannot build and boot the guest, or None."""
    if os.uname().machine != "x86_64":
        return f"the guest is an x86_64 machine, this one is {os.uname().machine}"
    if os.geteuid() != 0:
        return "the guest's root is built by debootstrap, which needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"the guest needs {', '.join(missing)}" if missing else None


def image(notify: Notify) -> Image:
    """Return the image for the present locks, built now unless it is cached.

    `notify` is given a line before something that takes long. Raises LabError with the end of the
    log when a step fails.
    """
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / _key()
    with _locked(cache / "lock"):
        if not wanted.is_dir():
            notify("building the guest's root (once, a minute or two) ...")
            began = time.monotonic()
            _build(wanted)
            notify(f"built the guest's root in {time.monotonic() - began:.0f} s: {wanted}")
        os.utime(wanted)
        _expire(cache)
    return Image(wanted / "root.ext4", wanted / "vmlinuz", wanted / "initrd", wanted / "tools")


def tool_requirements(lock: str) -> str:
    """Return the entries of requirements-dev.lock, hashes included, for TEST_TOOLS alone."""
    entries = lock.replace("\\\n", "\\\0").splitlines()
    chosen = [entry for entry in entries if entry.partition("==")[0] in TEST_TOOLS]
    if len(chosen) != len(TEST_TOOLS):
        raise LabError(f"requirements-dev.lock has {len(chosen)} of {', '.join(TEST_TOOLS)}")
    return "\n".join(chosen).replace("\\\0", "\\\n") + "\n"


def _cache() -> Path:
    chosen = os.environ.get("PORTCULLIS_CACHE")
    if chosen:
        return Path(chosen) / "guest"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "portcullis" / "guest"


def _locks() -> dict[str, str]:
    return {
        "build.txt": (ROOT / "requirements-build.lock").read_text(encoding="utf-8"),
        "run.txt": (ROOT / "requirements.lock").read_text(encoding="utf-8"),
        "test.txt": tool_requirements((ROOT / "requirements-dev.lock").read_text("utf-8")),
    }


def _key() -> str:
    """Hash what goes in: the recipe (this file, with suite and packages) and the locks."""
    parts = [Path(__file__).read_text(encoding="utf-8"), *_locks().values()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the cache's lock: two test runs at once build one image."""
    with path.open("w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _expire(cache: Path) -> None:
    """Remove images that have not been used for long, and what a killed build left."""
    for former in cache.iterdir():
        if former.is_dir() and time.time() - former.stat().st_mtime > _KEEP:
            shutil.rmtree(former, ignore_errors=True)


def _build(target: Path) -> None:
    """Make all files of the image in a directory next to `target`, then give it that name."""
    with tempfile.TemporaryDirectory(prefix="building-", dir=target.parent) as name:
        workshop = Path(name)
        root, result = workshop / "root", workshop / "result"
        result.mkdir()
        _run(
            "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)
        )
        _install_dependencies(root, result / "tools")
        _finish(root)
        for source, link in (("vmlinuz", "vmlinuz"), ("initrd", "initrd.img")):
            shutil.copyfile(root / (root / link).readlink(), result / source)
        size = int(_run("du", "-sm", str(root)).split()[0]) + _ROOM
        _run(
            "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root),
            str(result / "root.ext4"), f"{size}M",
        )  # fmt: skip
        result.rename(target)


def _install_dependencies(root: Path, tools: Path) -> None:
    """Install the locked packages into the root's virtual environment.

    They are fetched by this machine's pip with its own settings (indexes, proxies, certificates),
    for the guest's Python; inside, pip needs no network.
    """
    python = f"{PREFIX}/bin/python"
    _run("chroot", str(root), "python3", "-m", "venv", PREFIX)
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = _run("chroot", str(root), python, "-c", script).strip()
    store = root / "opt/packages"
    store.mkdir()
    for name, text in _locks().items():
        (store / name).write_text(text, encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    build = str(store / "build.txt")
    _run(*pip, "install", "--target", str(tools), "--require-hashes", "-r", build)
    for name in _locks():
        _run(
            *pip, "download", "--no-deps", "--require-hashes", "--no-build-isolation",
            "--python-version", version, "-d", str(store), "-r", str(store / name),
        )  # fmt: skip
    for names in (("build.txt",), ("run.txt", "test.txt")):
        _run(
            "chroot", str(root), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation",
            "--find-links=/opt/packages", "--require-hashes",
            *(argument for name in names for argument in ("-r", f"/opt/packages/{name}")),
        )  # fmt: skip
    shutil.rmtree(store)


def _finish(root: Path) -> None:
    """Add the init that hands over to the second disk, and drop what the guest never reads."""
    init = root / "sbin/guest-init"
    init.write_text(_INIT, encoding="ascii")
    init.chmod(0o755)
    for name in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
        shutil.rmtree(root / name)


def _run(*argv: str) -> str:
    """Run a command and return its output; LabError with the output's end when it fails."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise LabError(f"{_words(argv)}: exit {done.returncode}:\n{tail}")
    return done.stdout


def _words(argv: Sequence[str]) -> str:
    return " ".join(argv)[:200]
