"""The quadlets of docs/podman, run by systemd and Podman 5: a pod whose gateway comes and goes."""

import time

import pytest

from tests.docker.box import PYTHON
from tests.docker.images import LAB, PROJECT
from tests.docker.project import NUMBER, gateway_environment
from tests.docker.site import EXIT, HOST, UPLINK, Site, gateway_address, leaks_of
from tests.lab.capture import Capture
from tests.lab.process import eventually
from tests.systemd.machine import Machine, block, refused_by_the_machine

pytestmark = pytest.mark.systemd

QUADLETS = "/etc/containers/systemd"
MARKER = "must-not-leave"
FLOOD = (
    f"sh -c 'sleep infinity | python3 -I -S /lab/traffic.py flood host4={HOST.ipv4} "
    f"marker={MARKER} rate=200 kinds=udp4,tcp4'"
)
NEXT = f"localhost/{PROJECT}:next"
"""Another tag of the image, for an update."""


def podman(machine: Machine, *words: str, check: bool = True) -> str:
    """Run root's Podman."""
    return machine.exec("podman", *words, check=check)


def seen_from(machine: Machine) -> str:
    """Return the address that the host beyond the server sees of the workload."""
    code = f"import socket; print(socket.create_connection(({HOST.ipv4!r}, 7), 5).recv(99))"
    return podman(machine, "exec", "vpn-workload", *PYTHON, "-c", code)


@pytest.fixture(scope="module")
def watched(site: Site, machine: Machine) -> Capture:
    """Return a capture that began before the pod did; it runs, with a flood as its workload."""
    machine.load()
    variables = gateway_environment(site, NUMBER)
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    machine.write("/root/gateway.env", lines)
    machine.write("/root/key", site.gateway_keys[NUMBER].private, 0o600)
    *prepared, begun = block("podman.md", "quadlets").splitlines()
    script = "\n".join(prepared).replace("secrets/wireguard_private_key", "/root/key")
    machine.shell(script.replace(" gateway.env", " /root/gateway.env"))
    of_workload = f"{QUADLETS}/vpn-workload.container"
    text = machine.exec("cat", of_workload).replace(
        "Image=docker.io/library/nginx:latest",
        f"Image=localhost/{LAB}\nVolume=/lab:/lab:ro\nExec={FLOOD}",
    )
    machine.write(of_workload, text)
    said = machine.shell(
        "systemctl daemon-reload;"
        "/usr/lib/systemd/system-generators/podman-system-generator --dryrun 2>&1"
    )
    assert "unsupported key" not in said
    capture = site.capture_network(UPLINK)
    site.control(capture)
    machine.shell(begun)
    machine.start("vpn-workload")  # it waits for the gateway
    return capture


def killed(machine: Machine) -> None:
    """Kill the gateway's process, as the kernel does without memory; systemd starts it again."""
    podman(machine, "kill", "vpn-gateway")


def killed_again_and_again(machine: Machine) -> None:
    """Make a crash loop."""
    for _ in range(4):
        podman(machine, "kill", "vpn-gateway", check=False)
        time.sleep(2)


def restarted(machine: Machine) -> None:
    """`systemctl restart`."""
    machine.shell("systemctl restart vpn-gateway")


def updated(machine: Machine) -> None:
    """Another image, as `podman auto-update` has it."""
    podman(machine, "tag", PROJECT, NEXT)
    unit = f"{QUADLETS}/vpn-gateway.container"
    machine.shell(f"sed -i 's#^Image=.*#Image={NEXT}#' {unit}; systemctl daemon-reload")
    machine.shell("systemctl restart vpn-gateway")
    assert NEXT in podman(machine, "ps", "--format", "{{.Image}}")


@pytest.mark.parametrize("what", [killed, killed_again_and_again, restarted, updated])
def test_the_workload_runs_on_while_the_gateway_is_replaced(
    machine: Machine, watched: Capture, what: object
) -> None:
    """The pod keeps its namespace, closed; the workload is not restarted, and uses the tunnel."""
    assert callable(what)
    assert watched.frames()
    assert EXIT.ipv4 in seen_from(machine)
    of_workload = machine.started("vpn-workload")
    former = podman(machine, "inspect", "--format", "{{.Id}}", "vpn-gateway")
    what(machine)
    eventually(lambda: healthy_other_than(machine, former), timeout=90, what="another gateway")
    assert EXIT.ipv4 in seen_from(machine)
    assert machine.started("vpn-workload") == of_workload


def healthy_other_than(machine: Machine, former: str) -> bool:
    """Return whether there is another container of the gateway than `former`, and it is healthy."""
    shown = podman(
        machine,
        "inspect",
        "--format",
        "{{.Id}} {{.State.Health.Status}}",
        "vpn-gateway",
        check=False,
    )
    return former.strip() not in shown and "healthy" in shown.split()


def test_a_pod_that_is_made_again_is_closed_before_its_workload_runs(
    machine: Machine, watched: Capture
) -> None:
    """Without a gateway, which is not found: the flood runs, and the capture sees none of it."""
    unit = f"{QUADLETS}/vpn-gateway.container"
    machine.shell(f"sed -i 's#^Image=.*#Image=localhost/none#' {unit}; systemctl daemon-reload")
    machine.shell("systemctl restart vpn-pod")
    eventually(lambda: machine.active("vpn-workload"), timeout=60, what="the workload")
    time.sleep(3)
    assert not machine.active("vpn-gateway")
    assert watched.frames()
    machine.shell(
        "systemctl stop vpn-gateway;"
        f"sed -i 's#^Image=.*#Image=localhost/{PROJECT}#' {unit}; systemctl daemon-reload"
    )
    machine.start("vpn-gateway")
    assert EXIT.ipv4 in seen_from(machine)


def test_without_net_raw_verify_names_the_option(machine: Machine, watched: Capture) -> None:
    """Podman's default set of capabilities is without it."""
    assert watched.frames()
    name = f"localhost/{PROJECT}"
    said = podman(
        machine,
        *("run", "--rm", "--pod", "vpn", "--cap-add", "NET_ADMIN"),
        *("--env-file", "/etc/portcullis/vpn.env", "--secret", "wireguard_private_key"),
        *("--health-cmd", "none", name, "verify"),
        check=False,
    )
    assert "--cap-add NET_RAW" in said


def test_nothing_has_left_and_the_capture_would_have_seen_it(
    machine: Machine, watched: Capture
) -> None:
    """In all that the tests above have done. The control: what is not in the pod leaves."""
    assert watched.containing(MARKER) == []
    assert leaks_of(watched, NUMBER, allowed=[refused_by_the_machine]) == []
    marker = "of-an-open-pod"
    flood = f"host4={HOST.ipv4} marker={marker} rate=50 kinds=udp4"
    podman(
        machine,
        *("run", "-d", "-i", "--name", "open", "-v", "/lab:/lab:ro", f"localhost/{LAB}"),
        *(*PYTHON, "/lab/traffic.py", "flood", *flood.split()),
    )
    eventually(lambda: watched.containing(marker), timeout=20, what="the flood of an open pod")
    podman(machine, "rm", "-f", "-t", "0", "open")
    assert gateway_address(NUMBER).ipv4 in {frame.source for frame in watched.containing(marker)}
