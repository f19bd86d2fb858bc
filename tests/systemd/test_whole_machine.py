"""portcullis-host.service of docs/host.md: systemd locks its own machine, but for SSH."""

import json
import time

import pytest

from tests.docker.box import PYTHON
from tests.docker.project import NUMBER
from tests.docker.site import EXIT, HOST, LAN, UPLINK, Site, leaks_of
from tests.lab.errors import LabError
from tests.lab.frames import Frame
from tests.lab.hosts import echo
from tests.lab.process import eventually
from tests.systemd.machine import (
    Machine,
    answers,
    block,
    install_units,
    refused_by_the_machine,
    write_tunnel,
)

pytestmark = pytest.mark.systemd

SSH, OTHER = 22, 2222
BEFORE, AFTER = "of-the-open-machine", "must-not-leave"
GATEWAY = "/opt/portcullis/bin/gateway"


def of_ssh(frame: Frame) -> bool:
    """Return whether the machine answers a client of the listed port."""
    return frame.protocol == 6 and frame.source_port == SSH


def healthy(machine: Machine) -> bool:
    """Return whether the gateway of the machine is healthy."""
    return "healthy          yes" in machine.exec(GATEWAY, "status", check=False)


def flood(machine: Machine, marker: str) -> None:
    """Have a unit of the machine send without a pause."""
    given = f"host4={HOST.ipv4} marker={marker} rate=50 kinds=udp4,tcp4"
    machine.shell(f"systemd-run --unit={marker} {' '.join(PYTHON)} /lab/traffic.py flood {given}")


@pytest.fixture
def open_machine(site: Site, machine: Machine) -> Machine:
    """Return the machine with the units, two services, and no configuration yet."""
    install_units(machine)
    listening = json.dumps([echo("0.0.0.0", SSH), echo("0.0.0.0", OTHER)])
    served = f"sleep infinity | {' '.join(PYTHON)} /lab/services.py '{listening}'"
    machine.write("/root/services", f"#!/bin/sh\n{served}\n", 0o755)
    machine.shell("systemd-run --unit=services /root/services")
    eventually(lambda: answers(site, SSH) and answers(site, OTHER), timeout=20, what="services")
    return machine


def test_a_machine_is_locked_on_request_and_keeps_ssh(site: Site, open_machine: Machine) -> None:
    """Nothing is locked without the file. With it all but SSH is, while gateways come and go."""
    machine = open_machine
    capture = site.capture_network(UPLINK)
    site.control(capture)
    with pytest.raises(LabError):
        machine.shell("systemctl start portcullis-host")
    flood(machine, BEFORE)
    eventually(lambda: capture.containing(BEFORE), timeout=20, what="the flood of an open machine")
    assert answers(site, OTHER), "control"
    machine.shell(f"systemctl stop {BEFORE}")

    write_tunnel(machine, site, "/root/wg0.conf")
    listed = block("host.md", "host-env").replace("192.168.1.0/24", LAN)
    machine.write("/etc/portcullis/host.env", listed)
    machine.shell(block("host.md", "host").replace(" wg0.conf", " /root/wg0.conf"))
    eventually(lambda: healthy(machine), timeout=60, what="the tunnel of the machine")
    since = time.monotonic()
    flood(machine, AFTER)
    code = f"import socket; print(socket.create_connection(({HOST.ipv4!r}, 7), 5).recv(99))"
    assert EXIT.ipv4 in machine.exec(*PYTHON, "-c", code)
    assert answers(site, SSH)
    assert not answers(site, OTHER)

    machine.shell("systemctl kill -s KILL portcullis-host")
    eventually(lambda: healthy(machine), timeout=60, what="another gateway")
    assert answers(site, SSH)
    machine.shell("systemctl stop portcullis-host")
    assert not answers(site, SSH)
    assert capture.containing(AFTER) == []
    assert leaks_of(capture, NUMBER, since, allowed=[refused_by_the_machine, of_ssh]) == []
