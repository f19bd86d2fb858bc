"""The witness of `gateway verify` does not call nothing what it could not see."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import skip_or_fail

PROJECT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, socket, subprocess
from gateway.commands.verify.witness import Witness

MARKER = b"portcullis-0123456789abcdef"
subprocess.run(["sh", "-ec", '''
ip link add eth0 type veth peer name eth1
ip link set eth1 up
ip link set eth0 up
ip address add 10.0.0.1/24 dev eth0
ip address add fd00::1/64 dev eth0 nodad
ip neighbour add 10.0.0.2 lladdr 02:00:00:00:00:01 dev eth0
ip neighbour add fd00::2 lladdr 02:00:00:00:00:01 dev eth0
'''], check=True)
here = {
    "10.0.0.2": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "fd00::2": socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
}

def seen(first, host="10.0.0.2"):
    for _ in range(5000):
        here[host].sendto(first + bytes(1396), (host, 51820))
    here[host].sendto(MARKER, (host, 51820))
    found = witness.seen()
    return [found.frames, found.leaks, found.is_whole]

found = {}
with Witness(("eth0",), MARKER) as witness:
    found["few"] = (here["10.0.0.2"].sendto(MARKER, ("10.0.0.2", 9)), witness.seen().is_whole)[1]
    found["all"] = seen(bytes([4, 0, 0, 0]))
    witness.leave_out_the_tunnel()
    witness.seen()
    for host in here:
        found[host] = seen(bytes([4, 0, 0, 0]), host)
    found["others"] = seen(b"else")
    found["after"] = witness.seen().is_whole
    subprocess.run(["sh", "-ec", "ip link set eth0 down; ip link set eth0 up"], check=True)
    found["down"] = witness.seen().is_whole
print(json.dumps(found))
"""


def test_an_upload_hides_no_leak_and_what_was_lost_is_known() -> None:
    """More than its buffer leaves before the leak: messages of the tunnel do not count there.

    Control: without that, and with other frames, it loses some, and says so.
    """
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", sys.executable, "-c", SCRIPT],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        skip_or_fail("this machine allows no network namespace with links to this user")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["few"]
    for lost in ("all", "others"):
        frames, leaks, is_whole = found[lost]
        assert 0 < frames < 5000, "control: more than the buffer takes"
        assert (leaks, is_whole) == (0, False)
    for host in ("10.0.0.2", "fd00::2"):
        assert found[host][1:] == [1, True]
    assert found["after"]
    assert not found["down"]
