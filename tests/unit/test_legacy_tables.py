"""The legacy tables while nftables holds the rules, read and emptied by programs in memory."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall.xtables import legacy
from gateway.system.netns import Netns

IPV4, IPV6 = "ip_tables_names", "ip6_tables_names"
OPEN = ":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"


class Machine(Netns):
    """A namespace with legacy tables, and the programs that are installed for them.

    `names` has what the kernel lists for each family, or the errno of asking; `tables` what a
    program prints of a table; `runs` has each run: its arguments and its input.
    """

    def __init__(self, *installed: str) -> None:
        super().__init__(None, "own")
        self.installed = installed
        self.names: dict[str, str | int] = {IPV4: "", IPV6: ""}
        self.tables: dict[tuple[str, str], str] = {}
        self.runs: list[tuple[tuple[str, ...], str | None]] = []
        self.error: ProcessError | None = None

    def read(self, path: Path) -> str:
        """Return what the kernel lists."""
        names = self.names[path.name]
        if isinstance(names, int):
            raise OSError(names, os.strerror(names))
        return names

    def find_program(self, name: str) -> str:
        """Return the path of a program."""
        if name not in self.installed:
            raise MissingError(f"the program {name}", "install it")
        return f"/usr/sbin/{name}"

    def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: str | None,
        timeout: float,
        env: dict[str, str],
        netns: Netns,
    ) -> str:
        """Run a program."""
        self.find_program(argv[0])
        assert (timeout, env, netns) == (10.0, {"XTABLES_LOCKFILE": "/dev/null"}, self)
        self.runs.append((argv, stdin))
        if self.error is not None:
            raise self.error
        return self.tables.get((argv[0], argv[-1]), "")


ALL = tuple(
    f"{program}-{what}"
    for program in ("iptables-legacy", "ip6tables-legacy")
    for what in ("save", "restore")
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine with all programs, and no table in use."""
    made = Machine(*ALL)
    monkeypatch.setattr(legacy, "process", made)
    return made


def test_tables_that_were_never_opened_are_not_opened(machine: Machine) -> None:
    """To read one would bring it into the namespace."""
    assert legacy.leftovers(machine) == ()
    legacy.empty(machine)
    assert machine.runs == []


def test_what_is_in_the_way_is_a_line_with_its_program_and_table(machine: Machine) -> None:
    """Rules, policies and chains of others; what passes is not."""
    machine.names = {IPV4: "nat\nmangle\nfilter\n", IPV6: "filter\n"}
    machine.tables = {
        ("iptables-legacy-save", "filter"): (
            "# by\n*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [3:180]\n"
            ":DOCKER ACCEPT [0:0]\n:OTHER - [0:0]\n-A INPUT -j DROP\nCOMMIT\n"
        ),
        ("iptables-legacy-save", "mangle"): f"*mangle\n:PREROUTING ACCEPT [0:0]\n{OPEN}COMMIT\n",
        ("ip6tables-legacy-save", "filter"): f"*filter\n{OPEN}-A OUTPUT -j ACCEPT\nCOMMIT\n",
    }
    assert legacy.leftovers(machine) == (
        "iptables-legacy filter: :INPUT DROP [0:0]",
        "iptables-legacy filter: :DOCKER ACCEPT [0:0]",
        "iptables-legacy filter: :OTHER - [0:0]",
        "iptables-legacy filter: -A INPUT -j DROP",
        "ip6tables-legacy filter: -A OUTPUT -j ACCEPT",
    )
    assert [argv for argv, _ in machine.runs] == [
        ("iptables-legacy-save", "-t", "filter"),
        ("iptables-legacy-save", "-t", "mangle"),
        ("ip6tables-legacy-save", "-t", "filter"),
    ]


def test_without_the_program_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could be there can only refuse."""
    bare = Machine("ip6tables-legacy-save")
    monkeypatch.setattr(legacy, "process", bare)
    bare.names = {IPV4: "filter\n", IPV6: "filter\n"}
    bare.tables = {("ip6tables-legacy-save", "filter"): "-A INPUT -j DROP\n"}
    assert legacy.leftovers(bare) == ("ip6tables-legacy filter: -A INPUT -j DROP",)
    with pytest.raises(FirewallError, match="the legacy tables: iptables-legacy-restore"):
        legacy.empty(bare)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EMFILE])
def test_a_kernel_without_the_tables_differs_from_one_that_cannot_be_asked(
    machine: Machine, number: int
) -> None:
    """The first is an answer."""
    machine.names[IPV6] = number
    if number == errno.ENOENT:
        assert legacy.leftovers(machine) == ()
        return
    with pytest.raises(FirewallError) as caught:
        legacy.leftovers(machine)
    assert caught.value.errno == number
    assert caught.value.subject == "/proc/thread-self/net/ip6_tables_names"


def test_tables_in_use_are_emptied_in_one_run_for_each_family(machine: Machine) -> None:
    """Every chain that the kernel made accepts, and the others go."""
    machine.names = {IPV4: "mangle\nfilter\nnat\n", IPV6: ""}
    legacy.empty(machine)
    text = (
        f"*filter\n{OPEN}COMMIT\n*mangle\n:PREROUTING ACCEPT [0:0]\n{OPEN}"
        ":POSTROUTING ACCEPT [0:0]\nCOMMIT\n"
    )
    assert machine.runs == [(("iptables-legacy-restore",), text)]


def test_a_program_that_fails_is_an_error_with_its_number(machine: Machine) -> None:
    """A shortage is to be tried again."""
    machine.names[IPV4] = "filter\n"
    machine.error = ProcessError("iptables", "could not be started", "", errno.EAGAIN)
    for act in (legacy.leftovers, legacy.empty):
        with pytest.raises(FirewallError) as caught:
            act(machine)
        assert caught.value.errno == errno.EAGAIN


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the lock file, which does not exist yet."""
    file = tmp_path / "xtables.lock"
    monkeypatch.setattr(legacy, "LOCK_FILE", str(file))
    return file


def is_free(file: Path) -> bool:
    """Return whether another program could take the lock."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def test_other_programs_wait_for_us(lock: Path) -> None:
    """The lock is taken, and given back, also after an error."""
    with legacy.xtables_lock():
        assert not is_free(lock)
    assert is_free(lock)
    assert lock.stat().st_mode & 0o777 == 0o600
    with pytest.raises(RuntimeError), legacy.xtables_lock():
        raise RuntimeError
    assert is_free(lock)


def test_we_wait_for_another_program_but_not_for_long(lock: Path) -> None:
    """What we write is whole, so half a second is enough."""
    descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    began = time.monotonic()
    with legacy.xtables_lock():
        waited = time.monotonic() - began
    os.close(descriptor)
    assert 0.5 <= waited < 2


def test_a_lock_that_cannot_be_made_is_done_without(lock: Path) -> None:
    """On a read-only file system, for example."""
    lock.mkdir()
    lock.chmod(0)
    with legacy.xtables_lock():
        entered = True
    assert entered
