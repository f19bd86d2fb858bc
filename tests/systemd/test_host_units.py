"""The units of docs/host.md, run by systemd with the commands of the page."""

import time

import pytest

from tests.docker.box import PYTHON
from tests.docker.project import NUMBER
from tests.docker.site import EXIT, HOST, UPLINK, Site, leaks_of
from tests.lab.process import eventually
from tests.systemd.machine import (
    Machine,
    block,
    install_units,
    refused_by_the_machine,
    write_tunnel,
)

pytestmark = pytest.mark.systemd

UNIT = "transmission-daemon"
"""The unit that the page puts behind the gateway; here it sends without a pause."""
PROGRAM = "/usr/local/lib/portcullis/portcullis-netns"
MARKER = "must-not-leave"


def in_unit(machine: Machine, *words: str) -> str:
    """Run a command where the processes of UNIT are."""
    pid = machine.exec("systemctl", "show", "-p", "MainPID", "--value", UNIT).strip()
    return machine.exec("nsenter", f"--target={pid}", "--net", "--mount", "--", *words)


def seen_from(machine: Machine) -> str:
    """Return the address that the host beyond the server sees."""
    code = (
        f"import socket; print(socket.create_connection(({HOST.ipv4!r}, 7), 5).recv(99).decode())"
    )
    return in_unit(machine, *PYTHON, "-c", code).split()[0]


@pytest.fixture(scope="module")
def behind(site: Site, machine: Machine) -> Machine:
    """Return the machine with the units, started with the commands of the page."""
    machine.shell("echo 0 >/proc/sys/net/ipv4/ip_forward")
    install_units(machine)
    flood = f"traffic.py flood host4={HOST.ipv4} marker={MARKER} rate=200 kinds=udp4,tcp4"
    machine.write(
        f"/etc/systemd/system/{UNIT}.service",
        f"[Service]\nExecStart=/usr/bin/python3 -I -S /lab/{flood}\n",
    )
    write_tunnel(machine, site, "/root/wg0.conf")
    machine.shell(block("host.md", "gateway").replace(" wg0.conf", " /root/wg0.conf"))
    machine.shell(block("host.md", "unit"))
    return machine


def test_a_unit_uses_the_tunnel_while_gateways_come_and_go(site: Site, behind: Machine) -> None:
    """Killed, restarted, stopped: the unit runs on, and nothing leaves around the tunnel."""
    capture = site.capture_network(UPLINK)
    site.control(capture)
    of_unit = behind.started(UNIT)
    assert seen_from(behind) == EXIT.ipv4
    for action in ("kill -s KILL", "restart", "stop"):
        behind.shell(f"systemctl {action} portcullis@home")
        time.sleep(2)
    behind.start("portcullis@home")
    eventually(lambda: seen_from(behind) == EXIT.ipv4, timeout=20, what="the tunnel")
    assert behind.started(UNIT) == of_unit
    assert capture.containing(MARKER) == []
    assert leaks_of(capture, NUMBER, allowed=[refused_by_the_machine]) == []


def test_the_unit_has_names_of_the_tunnel_and_the_host_its_own(behind: Machine) -> None:
    """Nothing of the host's files is changed, and no name goes to systemd-resolved."""
    assert "nameserver 127.0.0.1" in in_unit(behind, "cat", "/etc/resolv.conf")
    assert "hosts: files dns" in in_unit(behind, "cat", "/etc/nsswitch.conf")
    assert "nameserver 127.0.0.1\n" not in behind.exec("cat", "/etc/resolv.conf")


def test_the_gateway_lacks_nothing_in_its_unit(behind: Machine) -> None:
    """The capabilities and mounts of the unit suffice for the resolver, too."""
    gateway = (PROGRAM, "gateway", "home")
    said = behind.exec(*gateway, "status")
    assert "healthy          yes" in said
    assert "limits           none" in said
    assert "As promised." in behind.exec(*gateway, "verify")


def test_without_its_namespace_nothing_runs_and_nothing_is_left(behind: Machine) -> None:
    """Stopping the namespace stops what is in it, and the host is as it was."""
    behind.shell("systemctl stop portcullis-netns@home")
    for unit in (UNIT, "portcullis@home", "portcullis-netns@home"):
        assert not behind.active(unit)
    left = behind.shell(
        "ip -o link; ip netns; nft list tables; ls /run/portcullis-netns;"
        "cat /proc/sys/net/ipv4/ip_forward"
    )
    assert "pcl-" not in left
    assert "portcullis" not in left
    assert left.endswith("0\n")
