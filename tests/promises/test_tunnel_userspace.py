"""What is special about wireguard-go: a process that can die, a device, a socket file."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import MissingError, TunnelError, TunnelGone
from gateway.model import INTERFACE
from gateway.tunnel import kernel
from tests.lab.process import eventually
from tests.tunnels import Real, real_implementations, wait_for_handshake

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]

if "userspace" not in real_implementations():
    pytest.skip("LAB_WIREGUARD asks for another one", allow_module_level=True)

MTU = 1420


@pytest.fixture
def real() -> Iterator[Real]:
    """Return a wireguard-go backend with nothing set up yet."""
    made = Real("userspace")
    yield made
    made.close()


def interface_is_there(real: Real) -> bool:
    """Return whether the namespace has the tunnel's interface."""
    return INTERFACE in real.own.run("ip", "link")


def test_a_killed_process_is_reported_as_a_gone_tunnel(real: Real) -> None:
    """`kill -9` of wireguard-go takes interface and key with it; `up` brings them back."""
    real.call("up", real.tunnel, MTU)
    os.kill(real.children()[0], signal.SIGKILL)
    with pytest.raises(TunnelGone):
        real.call("status")
    eventually(lambda: not interface_is_there(real), timeout=2, what="the interface's end")
    real.call("up", real.tunnel, MTU)
    assert wait_for_handshake(real)


def test_the_process_dies_with_the_gateway(real: Real) -> None:
    """`kill -9` of the gateway leaves no process, no interface and so no key behind."""
    real.call("up", real.tunnel, MTU)
    assert interface_is_there(real), "control"
    child = real.children()[0]
    real.kill_driver()
    eventually(lambda: not Path(f"/proc/{child}/exe").exists(), timeout=2, what="its end")
    eventually(lambda: not interface_is_there(real), timeout=2, what="the interface's end")


def test_a_stopped_process_does_not_hold_up_the_gateway(real: Real) -> None:
    """A wireguard-go that hangs is an error after a bounded time, and it can be replaced."""
    real.call("up", real.tunnel, MTU)
    (process,) = real.children()
    os.kill(process, signal.SIGSTOP)
    status = Path(f"/proc/{process}/status")
    eventually(lambda: "State:\tT" in status.read_text("ascii"), timeout=2, what="the stop")
    with pytest.raises(TunnelError):
        real.call("status")
    started = time.monotonic()
    real.call("up", real.tunnel, MTU)
    assert time.monotonic() - started < 2
    assert len(real.children()) == 1


def test_leftovers_of_a_former_gateway_do_not_matter(real: Real) -> None:
    """Its socket file, its interface, and a process of it that still runs."""
    left = ["nsenter", f"--target={real.pid}", "--net", "--mount", "--", "wireguard-go"]
    child = real.household.start([*left, "-f", INTERFACE], "leftover")
    eventually(lambda: interface_is_there(real), timeout=5, what="the leftover")
    real.call("up", real.tunnel, MTU)
    assert wait_for_handshake(real)
    child.wait(2)
    assert real.call("status")


def test_the_socket_is_for_root_alone(real: Real) -> None:
    """A process that can connect can read the private key."""
    real.call("up", real.tunnel, MTU)
    shown = real.call_tool("stat", "-c", "%a %u", f"/var/run/wireguard/{INTERFACE}.sock")
    assert shown.split() == ["600", "0"]


@pytest.mark.parametrize("wanted", ["userspace", *([] if kernel.available() else ["auto"])])
def test_without_its_device_the_error_has_the_remedy(real: Real, wanted: str) -> None:
    """A container without /dev/net/tun: the error names what to write into the compose file."""
    assert real.call("choose", "userspace", None), "control"
    real.call_tool("mount", "-t", "tmpfs", "tmpfs", "/dev/net")
    with pytest.raises(MissingError, match=r"devices: .*/dev/net/tun"):
        real.call("choose", wanted, None)
    with pytest.raises(MissingError, match="/dev/net/tun"):
        real.call("up", real.tunnel, MTU)


def test_where_its_socket_cannot_be_made_the_error_has_the_remedy(real: Real) -> None:
    """A read-only root file system: the error names what to mount."""
    real.call_tool("mount", "-o", "remount,ro", "/run")
    with pytest.raises(MissingError, match="tmpfs: "):
        real.call("up", real.tunnel, MTU)
    assert not interface_is_there(real)
    real.call_tool("mount", "-o", "remount,rw", "/run")
    real.call("up", real.tunnel, MTU)


def test_a_kernel_without_wireguard_says_so(real: Real) -> None:
    """Asking for the kernel's leaves nothing behind, whatever the answer is."""
    before = real.own.run("ip", "link")
    try:
        assert real.call("choose", "kernelspace", None) == "kernelspace"
    except MissingError as err:
        assert "modprobe wireguard" in str(err)  # noqa: PT017 - either answer is right here
    assert real.own.run("ip", "link") == before


def test_the_tunnel_is_up_in_a_tenth_of_a_second(real: Real) -> None:
    """The median of five, handshake not included; the whole start may take one second."""
    times = []
    for _ in range(5):
        started = time.monotonic()
        real.call("up", real.tunnel, MTU)
        times.append(time.monotonic() - started)
    assert sorted(times)[2] < 0.15, times
