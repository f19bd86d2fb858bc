"""The lock: whatever this machine can do, the namespace is closed, or the links are down."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway.lock import rules as lock_rules
from tests.lab.namespace import Namespace, connect
from tests.lab.process import PATIENCE
from tests.lab.workload import DOCKER_CAPABILITIES, with_capabilities

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1"), pytest.mark.no_gateway]

PROJECT = Path(__file__).resolve().parents[2]
LOCK = (sys.executable, "-c", "from gateway.lock import lockdown; print(lockdown.lock())")
GATEWAY = (sys.executable, "-m", "gateway")
WITHOUT_IPV6 = (sys.executable, str(PROJECT / "tests/lab/without_ipv6.py"))
TOOLS = ("iptables-legacy-restore", "ip6tables-legacy-restore", "nft")

KEEP_ONLY = """
mount -t tmpfs tmpfs /run
mkdir /run/former
mount --bind /usr/sbin /run/former
mount -t tmpfs tmpfs /usr/sbin
for tool in $KEPT; do ln -s /run/former/$tool /usr/sbin/$tool; done
exec "$@"
"""
"""Leaves of the kernel's tools those named in KEPT, in a mount namespace of its own."""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Return an open namespace with a link that is up."""
    own, far = Namespace(f"pclock{os.getpid()}"), Namespace(f"pclock{os.getpid()}far")
    own.create()
    far.create()
    connect(own, "eth0", far, "far")
    own.ip("link set eth0 up")
    far.ip("link set far up")
    yield own
    own.delete()
    far.delete()


def locked(
    namespace: Namespace,
    argv: Sequence[str] = LOCK,
    *,
    kept: Sequence[str] = TOOLS,
    setup: str = KEEP_ONLY,
    capabilities: Sequence[str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run `argv` in the namespace with what is left of the machine."""
    command = with_capabilities(capabilities)
    return subprocess.run(
        namespace.command(
            ["unshare", "--mount", "sh", "-ec", setup, "sh", *command, *argv],
        ),
        env={
            "PATH": "/nowhere:/usr/sbin:/usr/bin:/sbin:/bin",
            "KEPT": " ".join(kept),
            "PYTHONPATH": str(PROJECT),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def legacy(namespace: Namespace) -> tuple[bool, bool]:
    """Say of IPv4 and IPv6 whether the legacy tables hold the lock."""
    held = []
    for program, rules in (("iptables", lock_rules.IPV4), ("ip6tables", lock_rules.IPV6)):
        text = namespace.run(f"{program}-legacy-save", "-t", "filter")
        wanted = [line for line in rules.splitlines() if line.startswith("-A")]
        held.append([line for line in text.splitlines() if line.startswith("-A")] == wanted)
    return held[0], held[1]


def by_nft(namespace: Namespace) -> bool:
    """Return whether the table of nftables is there."""
    return "table inet portcullis" in namespace.run("nft", "list", "tables")


def links_up(namespace: Namespace) -> bool:
    """Return whether any link but the loopback is up."""
    return bool(namespace.run("ip", "-br", "link", "show", "up", "type", "veth").strip())


def test_both_families_are_closed_by_the_legacy_tables(namespace: Namespace) -> None:
    """Control: before the lock nothing is closed."""
    assert legacy(namespace) == (False, False)
    done = locked(namespace)
    assert (done.stdout.strip(), done.stderr) == ("iptables", "")
    assert legacy(namespace) == (True, True)
    assert not by_nft(namespace)
    assert links_up(namespace)


@pytest.mark.parametrize("missing", TOOLS[:2])
def test_nftables_locks_where_one_family_has_no_legacy_tables(
    namespace: Namespace, missing: str
) -> None:
    """Half a lock is none; the half that holds stays."""
    done = locked(namespace, kept=[tool for tool in TOOLS if tool != missing])
    assert (done.stdout.strip(), done.stderr) == ("nftables", "")
    assert by_nft(namespace)
    assert legacy(namespace) == (missing != TOOLS[0], missing != TOOLS[1])


def test_nftables_locks_without_the_capability_for_raw_sockets(namespace: Namespace) -> None:
    """The legacy tables need NET_RAW in addition to NET_ADMIN."""
    capabilities = ("net_admin", *(c for c in DOCKER_CAPABILITIES if c != "net_raw"))
    done = locked(namespace, capabilities=capabilities)
    assert (done.stdout.strip(), done.stderr) == ("nftables", "")
    assert by_nft(namespace)


@pytest.mark.parametrize("command", [(), ("hold",)], ids=["run", "hold"])
@pytest.mark.parametrize("kept", [(), TOOLS[:1], TOOLS[1:2]], ids=["none", "IPv4", "IPv6"])
def test_without_a_lock_every_link_goes_down(
    namespace: Namespace, kept: Sequence[str], command: Sequence[str]
) -> None:
    """No firewall for both families: the links go down, one line says so, and the exit is not 0."""
    assert links_up(namespace), "control"
    done = locked(namespace, (*GATEWAY, *command), kept=kept)
    assert done.returncode == 1
    assert "every link is down" in done.stderr
    assert "modprobe" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not links_up(namespace)


def test_ipv6_that_a_filter_of_system_calls_denies_is_not_left_open(namespace: Namespace) -> None:
    """The socket says that there is none, /proc that there is: nftables locks, or links go down."""
    done = locked(namespace, (*WITHOUT_IPV6, *LOCK))
    assert (done.stdout.strip(), done.stderr) == ("nftables", "")
    assert by_nft(namespace)
    assert legacy(namespace)[1] is False, "control: the filter works"
    done = locked(namespace, (*WITHOUT_IPV6, *GATEWAY), kept=TOOLS[:2])
    assert done.returncode == 1
    assert not links_up(namespace)


def frame_leaves(namespace: Namespace, link: str) -> bool:
    """Return whether the kernel takes a frame for `link` from a packet socket."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        try:
            sender.bind((link, 0))
            sender.send(bytes(12) + b"\x88\xb5" + bytes(46))
        except OSError:
            return False
    return True


def test_an_uplink_with_the_tunnels_name_is_shut_to_packet_sockets_too(
    namespace: Namespace,
) -> None:
    """A network's interface may be called wg0; and one with an @ is guarded as well."""
    for name in ("wg0", "a@b"):
        namespace.ip("link set eth0 down name own", f"link set own name {name}")
        namespace.ip(f"link set {name} up")
        namespace.run("nft", "flush", "ruleset")
        assert frame_leaves(namespace, name), "control"
        assert locked(namespace).returncode == 0
        assert not frame_leaves(namespace, name)
        namespace.ip(f"link set {name} down name eth0")


def test_a_link_that_no_rule_can_name_is_set_down_and_named_with_the_remedy(
    namespace: Namespace,
) -> None:
    """Every rule would take its name for a pattern; the rest of the namespace is closed."""
    namespace.ip("link set eth0 down name eth+0", "link set eth+0 up")
    assert frame_leaves(namespace, "eth+0"), "control"
    done = locked(namespace, GATEWAY)
    assert done.returncode == 1
    assert "'eth+0' (it is down); give the network's interface another name" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not links_up(namespace)
    assert not frame_leaves(namespace, "eth+0")
    assert legacy(namespace) == (True, True)


def test_a_missing_capability_is_named_with_the_remedy(namespace: Namespace) -> None:
    """Without NET_ADMIN nothing can be closed, and that is said as well."""
    done = locked(namespace, GATEWAY, capabilities=DOCKER_CAPABILITIES)
    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stderr
    assert "cap_add" in done.stderr
    assert "still up: eth0" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_read_only_system_can_be_locked(namespace: Namespace) -> None:
    """The lock file of the tools cannot be made there, and must not be needed."""
    read_only = 'mount -t tmpfs -o ro tmpfs /run && exec "$@"'
    done = locked(namespace, setup=read_only)
    assert (done.stdout.strip(), done.stderr) == ("iptables", "")
    assert legacy(namespace) == (True, True)


def test_no_other_program_can_hold_up_the_lock(namespace: Namespace) -> None:
    """A program that keeps the lock file of the tools costs a second, and not more."""
    held = """\
mount -t tmpfs tmpfs /run
flock /run/xtables.lock sleep 20 </dev/null >/dev/null 2>&1 &
sleep 0.2
exec "$@"
"""
    begin = time.monotonic()
    done = locked(namespace, setup=held)
    assert done.stdout.strip() == "iptables"
    assert legacy(namespace) == (True, True)
    assert 1 < time.monotonic() - begin < 1.2 + 3 * PATIENCE


@pytest.mark.parametrize("argument", ["check", "status", "--help"])
def test_commands_that_only_look_do_not_lock(namespace: Namespace, argument: str) -> None:
    """They run next to a gateway that works, by `docker exec`."""
    locked(namespace, (*GATEWAY, argument))
    assert legacy(namespace) == (False, False)
    assert not by_nft(namespace)


@pytest.mark.parametrize("arguments", [("run",), ("stauts",), ("--verbose",), ("run", "check")])
def test_everything_else_locks(namespace: Namespace, arguments: Sequence[str]) -> None:
    """An unknown command line leaves the namespace closed."""
    done = locked(namespace, (*GATEWAY, *arguments))
    assert done.returncode
    # Without ldconfig python-iptables does not load, so `run` hands over to nftables.
    assert legacy(namespace) == (True, True) or by_nft(namespace)


def test_a_crash_keeps_the_rules_and_shows_nothing(namespace: Namespace) -> None:
    """An unexpected error ends with one line and without its own words."""
    crash = (
        "import sys, types; cli = types.ModuleType('gateway.cli')\n"
        "def main(_): raise ValueError('canary-key')\n"
        "cli.main = main; sys.modules['gateway.cli'] = cli\n"
        "import gateway; gateway.cli = cli; sys.argv = ['gateway']\n"
        "from gateway.__main__ import main\nraise SystemExit(main())"
    )
    done = locked(namespace, (sys.executable, "-c", crash))
    assert done.returncode == 1
    assert "unexpected ValueError" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr + done.stdout
    assert legacy(namespace) == (True, True)


REFUSES_THE_GUARD = KEEP_ONLY.replace(
    'exec "$@"',
    """rm /usr/sbin/nft
cat >/usr/sbin/nft <<'END'
#!/bin/sh
case "$*" in "-f -" | "--debug=netlink -f -") ;; *) exec /run/former/nft "$@" ;; esac
text=$(cat)
case $text in *portcullis_guard*) echo "Error: not this one" >&2; exit 1 ;; esac
echo "$text" | /run/former/nft "$@"
END
chmod +x /usr/sbin/nft
exec "$@"
""",
)


@pytest.mark.promise("P14")
def test_links_go_down_when_a_kernel_with_the_hook_refuses_the_guard(namespace: Namespace) -> None:
    """The gateway ends, and what it leaves behind has no way out for packet sockets."""
    control = locked(namespace, GATEWAY)
    assert control.returncode == 2, "control: without a configuration it ends, with the links up"
    assert links_up(namespace)
    done = locked(namespace, GATEWAY, setup=REFUSES_THE_GUARD)
    assert done.returncode == 1, done.stderr
    assert "not this one" in done.stdout
    assert not links_up(namespace)
