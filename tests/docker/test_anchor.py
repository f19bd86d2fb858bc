"""The layout of compose.example.yml on a real engine: gateways come and go, workloads stay.

A download through the tunnel, a client on the LAN and a flood run all the time.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON
from tests.docker.images import PROJECT
from tests.docker.project import NUMBER, PUBLISHED, Project, gateway_environment
from tests.docker.site import BEYOND, EXIT, HOST, LAN_MACHINE, UPLINK, leaks_of
from tests.lab.errors import LabError
from tests.lab.frames import Frame
from tests.lab.process import eventually, promised
from tests.lab.workload import Traffic

pytestmark = [pytest.mark.docker, pytest.mark.promise("P1", "P6", "P15")]

MARKER = "must-not-leave"
SOURCE, SOURCE_PORT = "198.18.20.81", "9100"
NEXT = f"{PROJECT}:next"
"""Another tag of the image, for an update."""

TARGET = 5.0
"""Seconds without data that a recreation by Compose may take."""


class Uses:
    """What the workloads do meanwhile, each with one connection."""

    flooded = ("kinds=udp4,udp6,tcp4",)
    own_frames: tuple[Callable[[Frame], bool], ...] = ()
    """Frames that may leave, besides those of a client of the published port."""

    def __init__(self, project: Project) -> None:
        site = project.site
        self.project = project
        inside = f"container:{project.anchor.name}"
        lab = [*PYTHON, "/lab/transfer.py"]
        site.run(
            *("source", "-v", LAB_VOLUME, "--network", BEYOND, "--ip", SOURCE),
            command=[*lab, "source", SOURCE, SOURCE_PORT],
        )
        self.capture = site.capture_network(UPLINK)
        site.control(self.capture)
        self.flood = site.run(
            *("flood", "-v", LAB_VOLUME, "--network", inside),
            command=[
                *(*PYTHON, "/lab/traffic.py", "flood", f"host4={HOST.ipv4}", f"host6={HOST.ipv6}"),
                *(f"marker={MARKER}", "rate=200", *self.flooded),
            ],
        )
        self.download = site.run(
            *("download", "-v", LAB_VOLUME, "--network", inside),
            command=[*lab, "sink", SOURCE, SOURCE_PORT],
        )
        self.client: Traffic = site.lan.stream(LAN_MACHINE, port=PUBLISHED, timeout=1)
        self.boxes = (project.anchor, project.workload, self.flood, self.download)
        self.started = self._started()
        self.since = time.monotonic()
        eventually(self.moments, timeout=10, what="the first data of the download")

    def _started(self) -> list[str]:
        return [box.inspect("{{.Id}} {{.State.StartedAt}}") for box in self.boxes]

    def moments(self) -> list[float]:
        """Return when data came. Raises LabError when the download has ended."""
        events = self.download.events()
        if ends := [event["error"] for event in events if "error" in event]:
            raise LabError(f"the download has ended: {ends[0]}")
        return [float(str(event["at"])) for event in events]

    def longest_gap(self) -> float:
        """Return the longest time without data, in seconds."""
        return max(later - earlier for earlier, later in pairwise([self.since, *self.moments()]))

    def continue_untouched(self) -> None:
        """Check that both connections have carried data since now, and nothing was restarted."""
        now = time.monotonic()
        eventually(lambda: self.moments()[-1] > now, timeout=20, what="more of the download")
        self.client_continues(now)
        assert self._started() == self.started
        assert self.project.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4

    def client_continues(self, now: float) -> None:
        """Wait until the client's connection has carried something after `now`."""
        eventually(
            lambda: [e for e in self.client.exchanges() if e["at"] > now and not e["errno"]],
            timeout=20,
            what=f"an answer to the client on the LAN: {self.client.exchanges()[-3:]}",
        )

    def close(self) -> None:
        """End all; nothing may have left unencrypted."""
        self.client.close()
        for box in (self.download, self.flood):
            box.remove()
        assert self.capture.containing(MARKER) == []
        published = [lambda f: f.source_port == 80 and f.protocol == 6]
        assert leaks_of(self.capture, NUMBER, allowed=[*published, *self.own_frames]) == []


@pytest.fixture
def uses(project: Project) -> Iterator[Uses]:
    """Yield the traffic; afterwards nothing may have leaked."""
    project.ensure_running()
    found = Uses(project)
    yield found
    found.close()


def restarted(project: Project) -> None:
    """`docker restart`."""
    project.site.engine.docker("restart", project.gateway.name)


def killed(project: Project) -> None:
    """`docker kill`, then `docker start`."""
    project.site.engine.docker("kill", project.gateway.name)
    project.gateway.wait_for_end()
    project.site.engine.docker("start", project.gateway.name)


def stopped(project: Project) -> None:
    """`docker stop`, then `docker start`."""
    project.site.engine.docker("stop", project.gateway.name)
    project.site.engine.docker("start", project.gateway.name)


def recreated(project: Project) -> None:
    """Other variables, and `docker-compose up -d`."""
    changed = gateway_environment(project.site, NUMBER) | {"LOG_LEVEL": "debug"}
    project.change_gateway(environment=changed)


def updated(project: Project) -> None:
    """Another tag of the image, and `docker-compose up -d`."""
    project.site.engine.docker("tag", PROJECT, NEXT)
    project.change_gateway(image=NEXT)


@pytest.mark.parametrize("what", [restarted, killed, stopped, recreated, updated])
def test_workloads_do_not_notice_that_the_gateway_is_another_one(
    project: Project, uses: Uses, what: Callable[[Project], None], report: list[str]
) -> None:
    """Their containers and connections stay, and nothing leaves around the tunnel."""
    former = project.gateway.inspect("{{.Id}} {{.State.StartedAt}}")
    what(project)
    assert project.gateway.inspect("{{.Id}} {{.State.StartedAt}}") != former, "control"
    project.gateway.wait_for_health("healthy")
    uses.continue_untouched()
    gap = uses.longest_gap()
    report.append(f"anchor: {what.__name__}, {gap:.1f} s without data")
    assert gap < promised(TARGET)


def test_memory_that_runs_out_leaves_the_workloads_shut_in(project: Project, uses: Uses) -> None:
    """The kernel kills process 1, Docker starts it again, and the workloads run on.

    The limit is that of docs/kubernetes. The kernel would kill what takes the memory, but is asked
    to take process 1 first, with which all others of the container end.
    """
    engine, gateway = project.site.engine, project.gateway
    engine.docker("update", "--memory=512m", "--memory-swap=512m", gateway.name)
    before, began = int(gateway.inspect("{{.RestartCount}}")), time.time()
    code = "open('/proc/1/oom_score_adj', 'w').write('1000'); bytearray(1 << 30)"
    gateway.exec(*PYTHON, "-c", code, check=False)
    eventually(
        lambda: int(gateway.inspect("{{.RestartCount}}")) > before,
        timeout=20,
        what="a restart by Docker",
    )
    said = engine.docker(
        *("events", "--since", f"{began:.0f}", "--until", f"{time.time() + 1:.0f}"),
        *("--filter", f"container={gateway.name}", "--format", "{{.Action}} {{.Actor.Attributes}}"),
    )
    assert "oom" in said.split(), "control: the kernel has killed it"
    assert "exitCode:137" in said
    gateway.wait_for_health("healthy")
    uses.continue_untouched()


def test_a_reload_goes_unnoticed_and_a_wrong_file_changes_nothing(
    project: Project, uses: Uses, report: list[str]
) -> None:
    """By the command and by a signal; the mounted file is written to in its place."""
    secret = project.directory / "secrets/wireguard_private_key"
    key = secret.read_text(encoding="utf-8")
    for text, outcome in (("no key", "refused"), (key, "unchanged")):
        secret.write_text(text, encoding="utf-8")
        assert outcome in project.gateway.exec("gateway", "reload", check=False)
        uses.continue_untouched()
    project.site.engine.docker("kill", "--signal", "HUP", project.gateway.name)
    eventually(
        lambda: '"unchanged": 2' in project.gateway.exec("gateway", "status", "--json"),
        timeout=20,
        what="the second reload",
    )
    uses.continue_untouched()
    report.append(f"anchor: reload, {uses.longest_gap():.1f} s without data")
    assert uses.longest_gap() < promised(1)


def test_a_missing_gateway_leaves_the_workloads_shut_in(project: Project, uses: Uses) -> None:
    """Removed for ten seconds: what begins is refused at once, and connections wait."""
    project.site.engine.docker("rm", "-f", project.gateway.name)
    tried = project.workload.probe("tcp", host=HOST.ipv4)
    assert tried.failed_fast, tried
    time.sleep(10)
    assert time.monotonic() - uses.moments()[-1] > 8, "control: there is an interruption"
    project.change_gateway()
    project.gateway.wait_for_health("healthy")
    uses.continue_untouched()


def test_the_anchor_is_small_and_needs_nothing(project: Project, report: list[str]) -> None:
    """No configuration, no key, no health check of its own; what it holds is 8 MiB at most."""
    anchor = project.anchor
    variables = json.loads(anchor.inspect("{{json .Config.Env}}"))
    assert not [it for it in variables if it.startswith(("WIREGUARD", "VPN", "FIREWALL"))]
    rollup = anchor.read("/proc/1/smaps_rollup")
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    report.append(f"anchor: {pss} KiB proportional memory")
    assert pss <= 8 << 10
    assert anchor.inspect("{{.State.Health}}") == "<nil>"


def test_the_anchor_ends_at_once(project: Project) -> None:
    """Docker waits for no time limit; its workloads keep the closed namespace."""
    began = time.monotonic()
    project.site.engine.docker("stop", project.anchor.name)
    assert time.monotonic() - began < promised(3)
    assert project.anchor.exit_code == 0
    assert project.workload.probe("tcp", host=HOST.ipv4).failed_fast
    project.down()
    project.up()


@pytest.fixture
def pair(project: Project) -> Iterator[Project]:
    """Yield the pair of docs/layouts.md in place of the example."""
    project.down()
    found = Project(project.site, "pair")
    found.up()
    yield found
    found.down()
    project.up()


def test_a_pair_is_cut_off_by_a_restart_and_its_workload_turns_red(pair: Project) -> None:
    """As docs/layouts.md says: it has no link left, and a restart of its own brings it back.

    After a recreation of the gateway, a restart is not enough.
    """
    engine = pair.site.engine
    pair.workload.wait_for_health("healthy", timeout=60)
    for change, remedy in (
        (("restart", pair.gateway.name), ("restart", "-t", "0", pair.workload.name)),
        (("rm", "-f", pair.gateway.name), ()),
    ):
        engine.docker(*change)
        assert pair.workload.exec("ls", "/sys/class/net").split() == ["lo"]
        assert pair.workload.probe("tcp", host=HOST.ipv4).failed_fast
        # The lab's image has inherited a start period of 60 s, in which nothing is unhealthy.
        pair.workload.wait_for_health("unhealthy", timeout=100)
        if remedy:
            pair.gateway.wait_for_health("healthy")
            engine.docker(*remedy)
            assert pair.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    pair.change_gateway()
    said = engine.docker("restart", "-t", "0", pair.workload.name, check=False)
    assert "No such container" in said
