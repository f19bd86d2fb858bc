"""What the supervisor writes to the log and counts: changes of state, shortages, servers."""

import errno
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from gateway.daemon.ports import Parts
from gateway.daemon.setback import Setbacks
from gateway.errors import NetworkError, explained
from gateway.policy.actions import Work
from gateway.policy.rules import Chain, Family
from gateway.policy.states import Reason
from gateway.policy.timing import Moment, Timing
from tests.fakes.links import FakeGuard, FakeLinks
from tests.fakes.world import World
from tests.scenarios import GUARD_MARK, ONE_UPLINK
from tests.unit.test_supervisor import FIRST, ONE, SECOND, TWO, kills

TIMING = Timing()


def changes(logs: list[EventDict]) -> list[EventDict]:
    """Return the entries for changes of state."""
    return [entry for entry in logs if entry["event"] == "state changed"]


def test_each_change_of_state_is_one_line_with_its_reason_and_server() -> None:
    """And how long the state before has lasted, in seconds with three decimals."""
    world = World(ONE)
    with capture_logs() as logs:
        world.run((10, world.tunnel_lost), until=20)
    lines = [(it["old"], it["new"], it["reason"], it["endpoint"]) for it in changes(logs)]
    server = f"{FIRST}:51820"
    assert lines == [
        ("locked", "connecting", "starting", server),
        ("connecting", "connected", "server_answers", server),
        ("connected", "connecting", "interface_lost", server),
        ("connecting", "connected", "server_answers", server),
        ("connected", "stopping", "stopping", ""),
    ]
    up, lost = changes(logs)[1], changes(logs)[2]
    assert lost["detail"] == "there is no such interface: wg0"
    assert 9.5 < lost["seconds"] < 10
    assert up["seconds"] == round(up["seconds"], 3) > 0
    assert all(it["detail"] == "" for it in changes(logs) if it is not lost)
    assert {it["log_level"] for it in changes(logs)} == {"info"}


def test_a_stop_is_not_counted_as_a_lost_tunnel() -> None:
    """And the commands run once for each connection."""
    world = World(ONE)
    world.run((10, world.tunnel_lost), until=20)
    assert world.published[-1].reconnects == (("interface_lost", 1),)
    commands = [line for line in world.transcript if line.startswith("VPN_")]
    assert commands == ["VPN_UP_COMMAND", "VPN_DOWN_COMMAND"] * 2
    assert world.published[-1].switches == 0


def test_each_change_to_another_server_is_counted() -> None:
    """There and back; the first connection is not one."""
    world = World(TWO)
    world.run((10, kills(world, FIRST)), until=60)
    assert world.at(9).switches == 0
    assert world.at(59).switches == 1
    assert world.at(59).endpoint == f"{SECOND}:51820"
    assert world.at(59).reconnects == (("server_silent", 1),)


def test_a_status_names_the_parts_and_what_they_lack() -> None:
    """As far as the machine in memory has them."""
    world = World(ONE)
    refused = NetworkError("read-only", "/etc/resolv.conf")
    world.fails["resolv.conf"] = [refused] * 3
    world.run(until=10)
    status = world.at(9)
    assert (status.firewall, status.tunnel) == (world.firewall.name, world.tunnel.name)
    assert (status.guard, status.limits, status.drift) == (False, (), 0)
    first = next(it for it in world.published if it.state == "connected")
    assert [str(limit.code) for limit in first.limits] == ["no_names"]
    assert "read-only: /etc/resolv.conf" in first.limits[0].text
    assert world.published[0].verified_age is None, "nothing has been compared yet"


@pytest.mark.parametrize(
    "error", [NetworkError("read-only", "/etc/resolv.conf"), OSError("read-only: /etc/resolv.conf")]
)
def test_a_resolver_file_that_fails_and_works_again_is_two_lines(error: Exception) -> None:
    """However often it fails in between; a second time counts again."""
    world = World(ONE)
    world.fails["resolv.conf"] = [error, error, error, None, error]
    with capture_logs() as logs:
        world.run((10, world.tunnel_lost), until=20)
    lines = [it for it in logs if "resolver file" in it["event"]]
    failed, written = (
        ("could not write resolver file", "warning"),
        ("resolver file written again", "info"),
    )
    assert [(it["event"], it["log_level"]) for it in lines] == [failed, written] * 2
    assert lines[0]["problem"] == "read-only: /etc/resolv.conf"
    assert lines[0]["remedy"].startswith("mount a file of your own")


def test_the_reason_of_a_shortage_is_in_the_status() -> None:
    """The state is the one before."""
    world = World(ONE)
    error = NetworkError("not now", "wg0", errno.EAGAIN)
    world.run((10, lambda: world.fails.update(status=[error] * 5)), until=30)
    short = [it for it in world.published if it.reason is Reason.UNCHECKED]
    assert {(it.healthy, it.detail, it.state) for it in short} == {
        (False, explained(error), "connected")
    }


def moment(seconds: float) -> Moment:
    """Return a moment."""
    return Moment(1000 + seconds, TIMING)


def test_the_first_shortage_of_each_kind_and_the_end_of_all_are_logged() -> None:
    """The same one again is not; the number of attempts is known at the end."""
    setbacks = Setbacks()
    with capture_logs() as logs:
        setbacks.end()
        for text in ("a", "a", "b", "b"):
            setbacks.add(OSError(text), moment(0), Work.SAMPLE)
        setbacks.add(MemoryError(), moment(0), None)
        setbacks.end()
        setbacks.end()
        setbacks.add(OSError("b"), moment(0), None)
    warning = {"event": "could not check or change the kernel", "log_level": "warning"}
    assert logs == [
        warning | {"problem": "a"},
        warning | {"problem": "b"},
        warning | {"problem": "MemoryError"},
        {"event": "kernel calls succeed again", "log_level": "info", "attempts": 5},
        warning | {"problem": "b"},
    ]


def test_a_shortage_knows_when_to_try_again_and_what_failed() -> None:
    """Its attempts are counted until the kernel answers."""
    setbacks = Setbacks()
    assert setbacks.current is None
    setbacks.add(OSError("a"), moment(0), None)
    setbacks.add(OSError("b"), moment(1), Work.PROBE)
    current = setbacks.current
    assert current is not None
    assert (current.problem, current.attempt, current.work) == ("b", 2, Work.PROBE)
    assert current.retry_at == 1001.5
    setbacks.end()
    assert setbacks.current is None


def test_every_line_of_a_drift_is_in_the_status() -> None:
    """Separated, so that a person can read them."""
    world = World(ONE)

    def drift() -> None:
        for family in Family:
            world.firewall.rules[family, Chain.OUTPUT] = ()

    world.run((10, drift), until=20)
    detail = next(it.detail for it in world.published if it.reason is Reason.DRIFT)
    assert len(detail.split("; ")) > 1
    assert {line.split()[0] for line in detail.split("; ")} == {"IPV4", "IPV6"}


def test_every_link_that_is_kept_down_is_in_the_status() -> None:
    """Separated in the same way."""
    world = World(ONE)
    world.kept_down = ("eth1 is kept down", "eth2 is kept down")
    world.run(until=5)
    assert world.at(4).detail == "eth1 is kept down; eth2 is kept down"


def test_another_server_is_a_line_even_if_the_reason_is_the_same() -> None:
    """The log shows every server that was tried."""
    world = World(TWO)
    world.alive.clear()
    with capture_logs() as logs:
        world.run(until=12)
    tried = [(it["reason"], it["endpoint"]) for it in changes(logs) if it["new"] == "connecting"]
    assert {reason for reason, _ in tried[1:]} == {"no_handshake"}
    assert [endpoint for _, endpoint in tried] == [f"{FIRST}:51820", f"{SECOND}:51820"]


class Guarded(World):
    """A machine with an egress guard."""

    def _parts(self) -> Parts:
        self.facts = replace(ONE_UPLINK, guard_mark=GUARD_MARK)
        return replace(super()._parts(), guard=FakeGuard(FakeLinks(self.facts)))


def test_a_status_says_whether_packet_sockets_are_stopped() -> None:
    """A program need not search the limits for it."""
    world = Guarded(ONE)
    world.run(until=5)
    assert world.at(4).healthy
    assert world.at(4).guard


def test_links_that_are_kept_down_are_logged_at_their_beginning_and_end() -> None:
    """Once each, with their names and the remedy."""
    world = World(ONE)

    def keep_down(*links: str) -> None:
        world.kept_down = links

    with capture_logs() as logs:
        world.run((5, lambda: keep_down("eth1 is kept down")), (15, keep_down), until=25)
    lines = [(it["event"], it["log_level"]) for it in logs if "kept down" in it["event"]]
    assert lines == [("links kept down", "error"), ("links no longer kept down", "info")]
