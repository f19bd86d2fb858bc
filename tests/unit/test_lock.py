"""The lock: its rules, and the modules that it imports."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.nft.guard import TABLE, render_devices
from gateway.firewall.nft.render import transaction
from gateway.firewall.xtables import render as render_iptables
from gateway.lock import lockdown
from gateway.lock import rules as lock_rules
from gateway.policy.firewall import closed
from gateway.policy.guard import DeviceGuard, GuardRules
from gateway.policy.rules import Family, is_nameable
from tests.conftest import skip_or_fail

pytestmark = pytest.mark.promise("P1")

PROJECT = Path(__file__).resolve().parents[2]

IMPORTED = """
import sys
before = set(sys.modules)
import gateway.__main__
print(*sorted(set(sys.modules) - before))
"""


def test_the_static_rules_are_the_locked_state_of_the_policy() -> None:
    """The lock and the policy cannot drift apart, in any of the three languages."""
    assert render_iptables.render(closed(), Family.IPV4) == lock_rules.IPV4
    assert render_iptables.render(closed(), Family.IPV6) == lock_rules.IPV6
    assert render_nftables.render(closed()) == lock_rules.NFTABLES


def test_the_static_guard_is_the_guard_that_lets_nothing_pass() -> None:
    """`daemon.main.secure` later puts the same table with the same chains."""
    names = {"eth0": "eth0", "net.1_a-b": "net.1_a-b", "a@b": "a/ab", "wg0": "wg0"}
    chains = "\n".join(
        lock_rules.GUARD_CHAIN.format(name=name, chain=chain) for name, chain in names.items()
    )
    rules = GuardRules(1, tuple(map(DeviceGuard, names)))
    assert lock_rules.GUARD.format(chains=chains) == transaction(TABLE, render_devices(rules))


def test_the_lock_and_the_policy_agree_on_the_names_that_rules_can_carry() -> None:
    """The lock cannot import the policy's function; the kernel allows no colon in a name.

    With every character from `!` to the end of Latin Extended-B.
    """
    names = [f"eth{chr(number)}0" for number in range(33, 0x250)]
    by_lock = [name for name in names if lockdown.is_nameable(name)]
    assert by_lock == [name for name in names if is_nameable(name)]
    assert 0 < len(by_lock) < len(names)
    assert not is_nameable("")
    assert not is_nameable("x" * 16)


def test_nothing_is_imported_before_the_lock_but_the_lock() -> None:
    """The namespace is open until the lock; os, sys and time are loaded anyway."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}){IMPORTED}"],
        capture_output=True,
        text=True,
        check=True,
    )
    lock = ["gateway.lock", *(f"gateway.lock.{name}" for name in ("host", "lockdown", "rules"))]
    assert done.stdout.split() == ["gateway", "gateway.__main__", *lock]


LOCK = """
import sys
from gateway.lock import lockdown
lockdown.DIRECTORIES = (sys.argv[1],)
print(lockdown.lock())
"""
LINKS = """
ip link add eth0 type veth peer name eth1
ip link add eth2 type veth peer name eth3
exec "$@"
"""
LOADED = "#!/bin/sh\ncat >/dev/null\n"
REFUSED = """#!/bin/sh
said=$(ls {here} | grep -c '^said')
cat >{here}/said$said
{meanwhile}
echo 'Error: Could not process rule: No such file or directory' >&2
exit 1
"""


def locked(here: Path, tools: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Lock a namespace with two pairs of links, by scripts in place of the kernel's own tools."""
    for name, script in tools.items():
        (here / name).write_text(script)
        (here / name).chmod(0o755)
    own = ["unshare", "--net", "--map-root-user", "sh", "-ec", LINKS, "sh"]
    done = subprocess.run(
        [*own, sys.executable, "-c", LOCK, str(here)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "Operation not permitted" in done.stderr:
        skip_or_fail("this machine allows no network namespace with links to this user")
    return done


def texts_of_guard(here: Path, meanwhile: str) -> list[str]:
    """Lock a namespace with an nft that refuses; return the guards that it was given.

    It does `meanwhile` before it refuses.
    """
    tools = {
        "iptables-legacy-restore": LOADED,
        "ip6tables-legacy-restore": LOADED,
        "nft": REFUSED.format(here=here, meanwhile=meanwhile),
    }
    done = locked(here, tools)
    assert done.stdout == "iptables\n", done.stderr
    return [path.read_text() for path in sorted(here.glob("said*"))]


def guarded(text: str) -> list[str]:
    """Return the devices that have a chain in the text of a guard."""
    return sorted(line.split('"')[1] for line in text.splitlines() if " device " in line)


@pytest.mark.promise("P14")
def test_a_link_that_goes_while_the_lock_looks_costs_the_others_no_guard(tmp_path: Path) -> None:
    """The kernel has refused all of it (before Linux 6.16); those that are left are tried again."""
    gone = "if [ $said = 0 ]; then ip link del eth2; else exit 0; fi"
    texts = texts_of_guard(tmp_path, gone)
    assert [guarded(text) for text in texts] == [["eth0", "eth1", "eth2", "eth3"], ["eth0", "eth1"]]


def test_a_guard_that_is_refused_for_good_is_tried_once_and_left_to_what_comes_next(
    tmp_path: Path,
) -> None:
    """A kernel without the hook starts as fast as any; `secure` reports it or sets links down."""
    assert len(texts_of_guard(tmp_path, "")) == 1


def test_links_that_never_stay_do_not_keep_the_lock_from_ending(tmp_path: Path) -> None:
    """The number of attempts is bounded."""
    other = "ip link add new$said type veth peer name far$said"
    assert len(texts_of_guard(tmp_path, other)) == lockdown.GUARD_LOOKS


@pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
def test_a_guard_that_is_larger_than_a_pipe_does_not_stop_the_lock(
    tmp_path: Path, *, reads: bool
) -> None:
    """A host has a link for each container; control: the text is larger, and is there as a whole.

    An nft that ends without reading it has refused it.
    """
    links = ["ip -batch /dev/stdin <<'END'"]
    links += [f"link add many{n} type veth peer name longpeername{n}" for n in range(240)]
    (tmp_path / "links").write_text("\n".join([*links, "END"]))
    kept = f"cat >{tmp_path}/said" if reads else "exec <&-"
    tools = {
        "iptables-legacy-restore": LOADED,
        "ip6tables-legacy-restore": f"{LOADED}. {tmp_path}/links",
        "nft": f"#!/bin/sh\n{kept}\n",
    }
    done = locked(tmp_path, tools)
    assert done.stdout == "iptables\n", done.stderr
    if reads:
        text = (tmp_path / "said").read_text()
        assert len(text) > 1 << 16
        assert len(guarded(text)) == 484


TOOLS = ("iptables-legacy-restore", "ip6tables-legacy-restore", "nft")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("exit 3", "nft ended with status 3 and no message"),
        ("kill -9 $$", "nft ended with signal 9 and no message"),
        ("echo 'no such table'; exit 3", "(every link is down; no such table)"),
        ("head -c 300000 /dev/zero | tr '\\0' x; exit 3", f"(every link is down; {'x' * 4096})"),
    ],
)
def test_a_tool_that_fails_is_not_reported_as_missing(tmp_path: Path, end: str, said: str) -> None:
    """Neither if it says nothing: that it is installed is known then."""
    done = locked(tmp_path, dict.fromkeys(TOOLS, f"{LOADED}{end}\n"))
    assert done.returncode == 1
    assert said in done.stderr
    assert "neither iptables nor nftables works" in done.stderr
    assert "install" not in done.stderr.splitlines()[-1]


SHORT = """
import os, resource, sys
from gateway.lock import lockdown
lockdown.DIRECTORIES = (sys.argv[1],)
before = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_NOFILE, (3 + int(sys.argv[2]), 64))
failures = []
print(lockdown._run([("nft", (), ""), ("nft", (), "")], {}, failures), failures)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
print(before == os.listdir("/proc/self/fd"))
os.waitpid(-1, 0)
"""


@pytest.mark.parametrize(("left", "started"), [(1, 0), (2, 0), (3, 1), (4, 2)])
def test_a_want_of_descriptors_leaves_no_child_and_no_descriptor_behind(
    tmp_path: Path, left: int, started: int
) -> None:
    """The lock tries once a second: what an attempt leaves would add up to the next shortage.

    Control: with enough of them, both tools are started.
    """
    (tmp_path / "nft").symlink_to("/usr/bin/true")  # a script would need more descriptors itself
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path), str(left)],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    failures = ["not now: nft: Too many open files"] * (2 - started)
    outcomes = [number < started for number in range(2)]
    assert done.stdout.splitlines() == [f"{outcomes} {failures}", "True"], done.stderr
    assert "ChildProcessError" in done.stderr


NO_FILE = """
import os, resource, sys
from gateway.lock import lockdown
lockdown.DIRECTORIES = (sys.argv[1],)
pipe = os.pipe
def last_pipe():
    if made:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 64))
    made.append(None)
    return pipe()
made, os.pipe, failures = [], last_pipe, []
before = os.listdir("/proc/self/fd")
print(lockdown._run([("nft", (), ""), ("nft", (), "")], {}, failures), failures)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
print(before == os.listdir("/proc/self/fd"))
os.waitpid(-1, 0)
"""


def test_it_is_a_shortage_if_not_even_python_can_open_a_file(tmp_path: Path) -> None:
    """As where other processes have all that the machine has: the first tool is waited for."""
    (tmp_path / "nft").symlink_to("/usr/bin/true")
    done = subprocess.run(
        [sys.executable, "-c", NO_FILE, str(tmp_path)],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    failures = ["not now: nft: Too many open files"]
    assert done.stdout.splitlines() == [f"{[True, False]} {failures}", "True"], done.stderr
    assert "ChildProcessError" in done.stderr


@pytest.mark.parametrize("tools", [{}, {"nft": "not a program"}], ids=["none", "no program"])
def test_a_tool_that_cannot_be_started_is_reported_as_missing(
    tmp_path: Path, tools: dict[str, str]
) -> None:
    """With the command that installs one."""
    done = locked(tmp_path, tools)
    assert done.returncode == 1
    assert "can be started from" in done.stderr
    assert "apt install nftables" in done.stderr
