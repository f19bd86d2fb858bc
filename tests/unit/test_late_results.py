"""What happens to work when the loop does not expect its result: none counts twice or gets lost.

Times are seconds of a run on a clock that passes by itself.
"""

import asyncio
import errno
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.errors import FirewallError, NetworkError, TunnelError
from gateway.model import Tunnel
from gateway.policy.facts import TunnelStatus
from gateway.policy.states import Reason
from gateway.system.lookup import EndpointLookup
from gateway.system.netns import Netns
from tests.fakes.world import World
from tests.unit.test_supervisor import FIRST, ONE, TWO

NOT_NOW = NetworkError("not now", "rules", errno.EAGAIN)


@pytest.mark.promise("P15")
@pytest.mark.parametrize("part", ["status", "fault of"])
def test_work_that_a_change_starts_during_a_setback_is_followed(part: str) -> None:
    """The change is followed before the next attempt is due, and so is what comes of it."""
    world = World(ONE)

    def begins() -> None:
        world.fails[part] = [NOT_NOW] * 100_000

    def ends() -> None:
        del world.fails[part]
        world.supervisor.kernel_changed()

    world.run((10, begins), (18.5, ends), until=60)
    assert not world.at(18.4).healthy, "control: the next attempt was seconds away"
    assert world.at(19).healthy
    assert world.at(59).healthy
    assert world.transcript.count("status") > 12, "the counters are read every few seconds"


@pytest.mark.promise("P1")
def test_a_second_failure_on_the_way_back_ends_the_building_too() -> None:
    """The rules of the stricter state are refused as well, so its actions are never started."""
    world = World(TWO)
    seen: list[int] = []
    building = 0

    async def up(tunnel: Tunnel, mtu: int) -> None:
        nonlocal building
        del mtu
        if str(tunnel.endpoints[0].address) == FIRST:
            raise TunnelError("no")
        building += 1
        try:
            await asyncio.sleep(7.5)
        finally:
            building -= 1

    def looks() -> None:
        seen.append(building)

    def fails() -> None:
        world.fails["routing drift"] = [NetworkError("no")]
        world.fails["rules"] = [FirewallError("no")]
        world.supervisor.kernel_changed()

    world.tunnel.up = up  # type: ignore[method-assign]
    world.run((0.9, looks), (1, fails), (2, looks), until=3)
    assert not any(world.fails.values()), "control: both failed"
    assert world.at(2).state == "locked"
    assert seen == [1, 0]


@pytest.mark.promise("P15")
def test_memory_that_is_short_while_a_probe_is_sent_ends_nothing() -> None:
    """The probe is sent again."""
    world = World(ONE)
    world.run((5, lambda: world.fails.update(probe=[MemoryError()])), until=60)
    assert not world.fails["probe"], "control: it was raised"
    assert (world.at(59).healthy, world.at(59).reconnects) == (True, ())


@pytest.mark.promise("P15")
def test_a_setback_of_work_that_starts_again_at_once_is_over_when_it_has_reported() -> None:
    """Each sample takes longer than the pause after it: the next one is always under way."""
    world = World(ONE)
    status = world.tunnel.status

    async def slow() -> TunnelStatus:
        await asyncio.sleep(1.5)
        return await status()

    def begins() -> None:
        world.fails["status"] = [NOT_NOW]
        world.tunnel.status = slow  # type: ignore[method-assign]

    world.run((5, begins), until=30)
    assert Reason.UNCHECKED in {status.reason for status in world.published}, (
        "control: it was short"
    )
    assert world.at(13).healthy
    assert world.at(29).healthy


@pytest.mark.promise("P15")
def test_memory_that_is_short_while_the_resolver_file_is_written_ends_nothing() -> None:
    """The file is written again."""
    world = World(ONE)
    refused = NetworkError("read-only", "/etc/resolv.conf")
    world.fails["resolv.conf"] = [refused, MemoryError(), refused]
    world.run(until=30)
    assert not world.fails["resolv.conf"], "control: it was raised"
    assert (world.at(29).healthy, world.at(29).limits) == (True, ())


@pytest.mark.promise("P1")
def test_a_producer_that_fails_while_a_stop_waits_for_a_shortage_is_closed_too() -> None:
    """It cancels the loop, which keeps trying to close."""
    world = World(ONE)

    async def later() -> None:
        await asyncio.sleep(10.5)
        raise RuntimeError("a fault")

    world.others["other"] = later
    with pytest.raises(RuntimeError, match="a fault"):
        world.run((9.9, lambda: world.fails.update(rules=[NOT_NOW] * 20)), until=10)
    assert world.clock.now > world.since(10.5), "control: there was a shortage"
    assert world.firewall.summary == "closed"


def test_a_producer_that_fails_while_a_stop_waits_for_the_builder_leaves_no_key_behind() -> None:
    """The rules are closed already; the interface and its key are removed all the same."""
    world = World(ONE)

    async def up(*_: object) -> None:
        try:
            await asyncio.sleep(7.5)
        finally:
            await asyncio.sleep(1)

    async def later() -> None:
        await asyncio.sleep(2.5)
        raise RuntimeError("a fault")

    world.tunnel.up = up  # type: ignore[method-assign]
    world.others["other"] = later
    with pytest.raises(RuntimeError, match="a fault"):
        world.run(until=2)
    assert world.firewall.summary == "closed"
    assert "down" in world.transcript


class Unmarked(socket.socket):
    """A socket whose mark is left out, because that takes CAP_NET_ADMIN (socket(7), SO_MARK)."""

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """Set all options but the mark."""
        if option != socket.SO_MARK:
            super().setsockopt(level, option, *value)


class OwnNamespace(Netns):
    """The namespace of the test, whose sockets have no mark; `made` has all of them."""

    def __init__(self) -> None:
        super().__init__(None, "own")
        self.made: list[socket.socket] = []

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket."""
        self.made.append(Unmarked(family, kind, protocol))
        return self.made[-1]


def test_a_question_that_is_cut_off_leaves_the_socket_of_the_next_one_open() -> None:
    """The next candidate's socket is made before the former question has noticed its end."""
    netns = OwnNamespace()

    async def run() -> None:
        lookup = EndpointLookup(ip_address("127.0.0.1"), netns)
        lookup.open()
        former = asyncio.ensure_future(lookup.ask(("vpn.example",)))
        await asyncio.sleep(0.05)
        assert not former.done(), "control: it waits for an answer"
        former.cancel()
        lookup.open()
        await asyncio.wait([former])

    asyncio.run(run())
    assert [channel.fileno() == -1 for channel in netns.made] == [True, False]
    netns.made[-1].close()
