"""A process that has given up opening files, as the kernel sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.system.landlock import CREATE

pytestmark = pytest.mark.promise("P18")

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = f"""
import errno, os, sys
sys.path.insert(0, {str(PROJECT)!r})
def refuse(*_):
    raise OSError(errno.EPERM, "")
os.setgroups, os.setresgid, os.setresuid = (lambda _: None), refuse, refuse
from gateway.system import landlock
from gateway.system.rights import give_up_rights
file = sys.argv[1]
with open(file + ".open", "w") as given:
    calls = {{
        "read": lambda: open(file).close(),
        "write": lambda: open(file, "a").close(),
        "make": lambda: open(file + ".new", "x").close(),
        "list": lambda: os.listdir(os.path.dirname(file)),
        "remove": lambda: os.unlink(file + ".old"),
        "rename": lambda: os.rename(file, file + ".other"),
        "itself": lambda: open("/proc/self/environ").close(),
    }}
    def tried():
        for name, call in calls.items():
            try:
                call()
            except OSError as err:
                yield name, err.errno
            else:
                yield name, 0
    open(file + ".old", "w").close()
    before = dict(tried())
    os.rename(file + ".other", file)
    os.rename(file + ".new", file + ".old")
    give_up_rights("it", ())
    given.write("written")
import colorsys
with open(colorsys.__file__, "rb") as code:
    assert code.read(1)
try:
    open(colorsys.__file__, "ab")
except OSError as err:
    print(set(before.values()), set(dict(tried()).values()), err.errno)
"""


def run(code: str, *arguments: str) -> str:
    """Return what an interpreter writes that runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("begins", ["", "import sys; sys.path.insert(0, '//')"])
def test_it_opens_no_file_but_those_that_python_imports(tmp_path: Path, begins: str) -> None:
    """Though it is still the user who may: as root without CAP_SETUID it would read the keys.

    Also where `python -m gateway` was started in the root directory, which Python imports from
    then. The control is the same calls before. What was open can be written; a module can be
    imported.
    """
    file = tmp_path / "key"
    file.write_text("secret")
    assert run(begins + SCRIPT, str(file)) == "{0} {13} 13"
    assert (tmp_path / "key.open").read_text() == "written"
    assert file.read_text() == "secret"


@pytest.mark.parametrize("number", ["ENOSYS", "EOPNOTSUPP", "EPERM"])
def test_without_landlock_nothing_happens(tmp_path: Path, number: str) -> None:
    """An old kernel, one that has it off, the filter of an old container engine."""
    code = f"""
import ctypes, errno, sys
sys.path.insert(0, {str(PROJECT)!r})
from gateway.system import landlock
class Without:
    def __init__(self, *_, **__):
        pass
    def syscall(self, call, *_):
        assert call == {CREATE}
        ctypes.set_errno(errno.{number})
        return -1
ctypes.CDLL = Without
landlock.read_only_below(sys.path)
print(open(sys.argv[1]).read())
"""
    (tmp_path / "file").write_text("read")
    assert run(code, str(tmp_path / "file")) == "read"


def test_a_failure_is_an_error() -> None:
    """As without PR_SET_NO_NEW_PRIVS, for who has no CAP_SYS_ADMIN."""
    code = f"""
import ctypes, sys
sys.path.insert(0, {str(PROJECT)!r})
from gateway.system import landlock, rights
libc = ctypes.CDLL(None)
head, none = (ctypes.c_uint32 * 2)(rights.CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
assert libc.capset(head, none) == 0
try:
    landlock.read_only_below(sys.path)
except OSError as err:
    print(err)
print(open("/etc/passwd").read(0))
"""
    assert run(code) == "[Errno 1] Operation not permitted"
