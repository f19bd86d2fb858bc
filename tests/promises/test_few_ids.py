"""A user namespace with few ids, as `podman run --userns=auto:size=1024` makes one.

The users of our services are not among them. The kernel refuses to become one, and the legacy
tables refuse rules that name one.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.policy.limits import MORE_USERS
from tests.lab.gateway import PROJECT

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

ENTER = """
import ctypes, os, sys
flags = 0x10000000 | 0x40000000 | 0x20000  # CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS
assert ctypes.CDLL(None).unshare(flags) == 0
print(flush=True)
sys.stdin.readline()
os.execvp("sh", ["sh", "-ec", sys.argv[1]])
"""
MADE = """
mount --make-rprivate /
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
echo nameserver 10.99.0.53 >/run/resolv.conf
mount --bind /run/resolv.conf "$(readlink -m /etc/resolv.conf)"
ip link set lo up
ip link add eth0 type veth peer name other
ip link set other up
ip link set eth0 up
ip address add 10.99.0.2/24 dev eth0
ip route add default via 10.99.0.1
"""
RUN = f'{MADE}\nexec timeout --signal TERM 4 "{sys.executable}" -m gateway'
CONFINED = """
import resource
from gateway.system.rights import give_up_rights
status = open("/proc/self/status")
give_up_rights("it", ((resource.RLIMIT_CPU, 9),))
print(*(it for it in status if it.startswith("CapPrm")))
"""


def run(ids: int, script: str, environment: dict[str, str]) -> str:
    """Return what a shell writes in new namespaces with ids up to that number."""
    with subprocess.Popen(
        [sys.executable, "-c", ENTER, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)} | environment,
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{child.pid}/{kind}_map").write_text(f"0 0 {ids}\n", "ascii")
        said, _ = child.communicate("\n", timeout=20)
        assert child.returncode in {0, 124}, said
        return said


@pytest.mark.parametrize("ids", [1024, 65536])
@pytest.mark.both_firewalls
def test_there_the_gateway_works_and_says_what_is_missing(ids: int) -> None:
    """The control has enough of them: the same gateway lacks nothing there."""
    ours, theirs = (base64.b64encode(bytes([it] * 32)).decode() for it in (1, 2))
    wanted = {
        "FIREWALL_BACKEND": os.environ["LAB_FIREWALL"],
        "FIREWALL_OUTBOUND_SUBNETS": "10.99.0.0/24",
        "HTTPPROXY": "on",
        "LOG_FORMAT": "json",
        "WIREGUARD_ADDRESSES": "10.64.0.2/32",
        "WIREGUARD_ENDPOINT_IP": "198.51.100.10",
        "WIREGUARD_ENDPOINT_PORT": "51820",
        "WIREGUARD_PRIVATE_KEY": ours,
        "WIREGUARD_PUBLIC_KEY": theirs,
    }
    before = Path("/etc/resolv.conf").read_bytes()
    lines = run(ids, RUN, wanted).splitlines()
    assert Path("/etc/resolv.conf").read_bytes() == before, "it has changed this machine's file"
    log = [json.loads(line) for line in lines if line.startswith("{")]
    events = [it["event"] for it in log]
    assert "could not apply rules; closing" not in events, lines
    assert "connecting" in {it.get("new") for it in log}, lines
    assert (MORE_USERS in str(lines)) is (ids == 1024), lines


@pytest.mark.parametrize("ids", [1024, 65536])
def test_there_a_process_for_strangers_gives_up_its_rights_nevertheless(ids: int) -> None:
    """It stays the namespace's root then, without a capability."""
    said = run(ids, f"exec {sys.executable} -c '{CONFINED}'", {})
    assert said.split() == ["CapPrm:", "0" * 16]
