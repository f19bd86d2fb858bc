"""Programs of arm64 on this machine: qemu-user, which the kernel starts for them (binfmt_misc).

The kernel has one list of such interpreters for all namespaces, so ours is in it only while a test
needs it, under a name that says whose it is. With the flag F the kernel opens the interpreter when
it is registered: no root file system has to have it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docker.engine import call

PACKAGE = "qemu-user-static"
PROGRAMS = ("qemu-aarch64-static", "qemu-aarch64")
"""The interpreter, which needs no library, in Debian 12 and in later ones."""
NAME = "portcullis-arm64-"
"""Before the id of the process that has registered it."""

_ENTRY = (
    r":{name}:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    r":{program}:F"
)
"""An ELF file of 64 bits, little-endian, a program or a shared one, for EM_AARCH64 (183)."""

_INSIDE = 'mount -t binfmt_misc binfmt_misc /mnt; cd /mnt; eval "$1"'


def obstacle() -> str | None:
    """Return why this machine cannot run programs of arm64, or None."""
    if os.geteuid() != 0:
        return "only root can have the kernel run programs of arm64"
    if is_native():
        return None
    if program() is None:
        return f"the program {PROGRAMS[0]} is missing: apt-get install {PACKAGE}"
    if "binfmt_misc" not in Path("/proc/filesystems").read_text("ascii").split():
        return "the kernel has no binfmt_misc: modprobe binfmt_misc"
    return None


def program() -> str | None:
    """Return the path of the interpreter, or None without one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def is_native() -> bool:
    """Return whether this machine is one of arm64 itself."""
    return os.uname().machine == "aarch64"


@contextmanager
def emulated() -> Iterator[None]:
    """Have the kernel run programs of arm64, in every namespace, until the end."""
    if is_native():
        yield
        return
    name = _name()
    entry = _ENTRY.format(name=name, program=program())
    # The kernel forgets the entries with the last mount of the list, so this one stays. The script
    # reads to the end of its input, and removes the entry when this process is killed, too.
    script = f"printf %s '{entry}' >register; echo; read -r _ || :; echo -1 >'{name}'"
    holder = subprocess.Popen(_inside(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline(), "the kernel does not take the entry"
            yield
        finally:
            holder.stdin.close()


def is_registered() -> bool:
    """Return whether the kernel has the entry of this process."""
    return not is_native() and _name() in call(_inside("ls")).split()


def _name() -> str:
    return f"{NAME}{os.getpid()}"


def _inside(script: str) -> tuple[str, ...]:
    """Return the command of a script in the directory of the list, mounted for it alone."""
    return ("unshare", "--mount", "--propagation=private", "sh", "-ec", _INSIDE, "sh", script)
