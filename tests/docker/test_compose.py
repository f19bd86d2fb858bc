"""compose.example.yml on a real engine: order of start, address, ports, tunnel down and up."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.project import NUMBER, PUBLISHED, UNLISTED, Project
from tests.docker.site import (
    BEYOND,
    EXIT,
    HOST,
    LAN_HOST,
    LAN_MACHINE,
    SERVER,
    UPLINK,
    Site,
    gateway_address,
    leaks_of,
)
from tests.lab.errors import LabError
from tests.lab.process import eventually, promised

pytestmark = pytest.mark.docker

MARKER = "must-not-leave"


@pytest.fixture
def ordinary(site: Site) -> Iterator[Box]:
    """Yield a container on the gateway's network that has nothing to do with the gateway."""
    box = site.run("ordinary", "-v", LAB_VOLUME, "--network", UPLINK, command=["sleep", "infinity"])
    yield box
    box.remove()


@pytest.fixture(autouse=True)
def healthy(project: Project) -> None:
    """Begin every test with everything running and the tunnel up."""
    if project.gateway.state != "running" or project.gateway.health != "healthy":
        project.ensure_running()


def flood(site: Site, name: str, network: str, *words: str) -> Box:
    """Start a container that sends marked packets until it is stopped."""
    argv = [f"host4={HOST.ipv4}", f"host6={HOST.ipv6}", f"marker={MARKER}", "rate=500", *words]
    return site.run(
        *(name, "-v", LAB_VOLUME, "--network", network),
        command=[*PYTHON, "/lab/traffic.py", "flood", *argv],
    )


def test_the_workload_starts_only_when_the_gateway_is_healthy(project: Project) -> None:
    """`depends_on: condition: service_healthy` holds it back until the first good health check."""
    project.down()
    project.site.cut()
    try:
        with pytest.raises(LabError, match="not done after"):
            project.up(timeout=8)
        assert project.gateway.health == "starting"
        assert not project.workload.started_ever
    finally:
        project.site.restore()
    project.up()
    assert project.gateway.health == "healthy"
    assert project.workload.state == "running"
    assert project.workload.started_ever, "control: once it runs, that is reported"
    log = json.loads(project.gateway.inspect("{{json .State.Health.Log}}"))
    first_good = next(entry for entry in log if entry["ExitCode"] == 0)
    started = project.workload.inspect("{{.State.StartedAt}}")
    assert datetime.fromisoformat(first_good["End"]) < datetime.fromisoformat(started)


@pytest.mark.parametrize("host", list(HOST), ids=["ipv4", "ipv6"])
def test_the_address_seen_outside_is_the_servers_exit(project: Project, host: str) -> None:
    """TCP and UDP of both families leave by the tunnel, and nothing of it is on the uplink."""
    capture = project.site.capture_of(project.gateway, NUMBER)
    for probe in ("tcp", "udp"):
        seen = project.workload.probe(probe, host=host).seen
        assert seen == (EXIT.ipv6 if ":" in host else EXIT.ipv4)
    assert project.site.leaks(capture) == []


@pytest.mark.promise("P10")
def test_names_resolve_in_the_tunnel_and_dockers_resolver_is_refused(
    project: Project, ordinary: Box
) -> None:
    """The server's resolver answers the workload; 127.0.0.11 refuses it at once, UDP and TCP.

    Control: an ordinary container gets its answer from 127.0.0.11, and the machine's resolver sees
    the question.
    """
    site = project.site
    assert ordinary.probe("dns", name="control.test").result == "answered"
    assert site.resolver.events(name="control.test")
    resolved = project.workload.probe("resolve", name="inside.example")
    assert resolved.fields["addresses"] == sorted(HOST)
    assert site.server.events(name="inside.example")
    for transport in ("udp", "tcp"):
        tried = project.workload.probe("dns", name="outside.test", transport=transport)
        assert tried.failed_fast, tried
    assert site.resolver.events(name="outside.test") == []
    assert site.resolver.events(name="inside.example") == []


@pytest.mark.promise("P7")
def test_a_listed_subnet_is_reached_around_the_tunnel_and_nothing_else_is(
    project: Project,
) -> None:
    """The LAN host answers the workload; the gateway's neighbours on Docker's network do not."""
    assert project.workload.probe("tcp", host=LAN_HOST).seen == LAN_MACHINE
    assert project.workload.probe("udp", host=LAN_HOST).seen == LAN_MACHINE
    capture = project.site.capture_of(project.gateway, NUMBER)
    assert project.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    neighbour = project.workload.probe("tcp", host=SERVER.ipv4, port=80)
    assert neighbour.failed_fast, neighbour
    assert project.site.leaks(capture) == []


@pytest.mark.promise("P8")
def test_a_published_port_answers_the_machine_and_other_networks(
    project: Project, ordinary: Box
) -> None:
    """From the machine itself, from its LAN, and from containers next to the gateway."""
    site = project.site
    assert site.machine.probe("tcp", host="127.0.0.1", port=PUBLISHED).seen
    assert site.machine.probe("tcp", host=gateway_address(NUMBER).ipv4, port=80).seen
    assert site.lan.probe("tcp", host=LAN_MACHINE, port=PUBLISHED).seen == LAN_HOST
    assert ordinary.probe("tcp", host=gateway_address(NUMBER).ipv4, port=80).seen
    other = site.run("other", "-v", LAB_VOLUME, "--network", BEYOND, command=["sleep", "infinity"])
    try:
        machine_on_beyond = "198.18.20.1"
        assert other.probe("tcp", host=machine_on_beyond, port=PUBLISHED).seen
    finally:
        other.remove()


@pytest.mark.promise("P8")
def test_a_published_port_that_is_not_listed_stays_closed(project: Project, ordinary: Box) -> None:
    """The workload listens and Docker publishes, but FIREWALL_INPUT_PORTS does not name it.

    Control: the workload itself reaches that port.
    """
    site = project.site
    assert project.workload.probe("tcp", host="127.0.0.1", port=81).seen
    assert not site.machine.probe("tcp", host="127.0.0.1", port=UNLISTED).seen
    assert not site.lan.probe("tcp", host=LAN_MACHINE, port=UNLISTED).seen
    assert not ordinary.probe("tcp", host=gateway_address(NUMBER).ipv4, port=81).seen


@pytest.mark.promise("P4", "P15")
def test_the_tunnel_dies_and_comes_back_under_the_same_workload(project: Project) -> None:
    """Red within 25 s of the server's silence, refused at once from then on; then green again.

    Nothing of the workload is on the uplink in the meantime. Control: the workload's packets are
    answered before and after.
    """
    site = project.site
    started = project.workload.inspect("{{.State.StartedAt}}")
    assert project.workload.probe("udp", host=HOST.ipv4, marker=MARKER).seen == EXIT.ipv4
    capture = site.capture_of(project.gateway, NUMBER)
    sender = flood(site, "sender", f"container:{project.gateway.name}", "kinds=udp4,udp6,tcp4")
    try:
        site.cut()
        project.gateway.wait_for_health("unhealthy", timeout=25)
        for host in HOST:
            tried = project.workload.probe("tcp", host=host)
            assert tried.failed_fast, tried
            assert tried.seconds < 1
        site.restore()
        project.gateway.wait_for_health("healthy", timeout=60)
    finally:
        site.restore()
        sender.remove()
    assert project.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    assert project.workload.inspect("{{.State.StartedAt}}") == started
    assert capture.containing(MARKER) == []
    assert project.site.leaks(capture) == []


def test_the_operators_own_check_finds_everything_as_promised(project: Project) -> None:
    """`gateway verify --cut` tries every way around the tunnel from inside, and none is open."""
    reported = project.gateway.exec("gateway", "verify", "--cut")
    assert "As promised." in reported
    project.gateway.wait_for_health("healthy")


def test_an_ordinary_container_is_seen_on_the_uplink(site: Site) -> None:
    """Control of every flood in this module: without a gateway the same packets are captured."""
    capture = site.capture_network(UPLINK)
    sender = flood(site, "sender", UPLINK, "kinds=udp4,udp6,tcp4")
    try:
        eventually(lambda: capture.containing(MARKER), timeout=10, what="the flood")
    finally:
        sender.remove()


@pytest.mark.promise("P1")
def test_docker_stop_ends_well_and_closed(project: Project) -> None:
    """Under 3 s, exit code 0, and the workload that holds on to the namespace gets nothing out."""
    site = project.site
    capture = site.capture_network(UPLINK)
    sender = flood(site, "sender", f"container:{project.gateway.name}", "kinds=udp4,udp6,tcp4")
    try:
        began = datetime.now(UTC)
        site.engine.docker("stop", project.gateway.name)
        ended = datetime.fromisoformat(project.gateway.inspect("{{.State.FinishedAt}}"))
        assert project.gateway.exit_code == 0
        assert (ended - began).total_seconds() < promised(3)
        assert sender.state == "running"
        assert project.workload.state == "running"
        time.sleep(1)
        project.ensure_running()
    finally:
        sender.remove()
    assert capture.containing(MARKER) == []
    assert leaks_of(capture, NUMBER) == []


@pytest.mark.promise("P1")
def test_docker_kill_and_start_again_leaks_nothing(project: Project) -> None:
    """A gateway that dies without a word leaves its workloads shut in, and works again later."""
    site = project.site
    capture = site.capture_network(UPLINK)
    sender = flood(site, "sender", f"container:{project.gateway.name}", "kinds=udp4,udp6,tcp4")
    try:
        site.engine.docker("kill", project.gateway.name)
        assert project.gateway.wait_for_end() == 137
        assert sender.state == "running"
        tried = project.workload.probe("tcp", host=HOST.ipv4)
        assert tried.failed_fast, tried
        project.ensure_running()
    finally:
        sender.remove()
    assert project.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    assert capture.containing(MARKER) == []
    assert leaks_of(capture, NUMBER) == []


@pytest.mark.promise("P4")
def test_the_gateway_is_closed_before_its_tunnel_is_up(project: Project) -> None:
    """A workload that joins at once gets nothing out while there is no handshake yet."""
    site = project.site
    site.cut()
    capture = site.capture_network(UPLINK)
    site.engine.docker("restart", "-t", "3", project.gateway.name)
    sender = flood(site, "sender", f"container:{project.gateway.name}", "kinds=udp4,udp6,tcp4")
    try:
        time.sleep(3)
        assert sender.state == "running"
        project.ensure_running()
    finally:
        site.restore()
        sender.remove()
    assert capture.containing(MARKER) == []
    assert leaks_of(capture, NUMBER) == []
