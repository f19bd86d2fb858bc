"""What becomes of work that fails: the event that the machine gets, seen from outside."""

import errno
from ipaddress import ip_address

import pytest

from gateway.errors import KernelError, NetworkError, TunnelError, explained
from gateway.policy.facts import Facts
from gateway.policy.states import Reason
from gateway.policy.timing import Timing
from tests.fakes.world import World, other_uplink
from tests.scenarios import ONE_UPLINK
from tests.unit.test_supervisor import BY_NAME, FIRST, ONE, SECOND, TWO, kills

TIMING = Timing()
NOT_NOW = NetworkError("not now", "rules", errno.EAGAIN)


def test_only_a_port_that_is_taken_is_given_up() -> None:
    """Any other failure to build leaves it as configured; a random one is from RFC 6335's range."""
    world = World(ONE)
    world.fails["up"] = [TunnelError("no"), TunnelError("no", "wg0", errno.EPERM)]
    ports = []
    world.run((10, lambda: ports.append(world.tunnel.standing)), until=12)
    assert [tunnel.listen_port for tunnel in ports if tunnel] == [51820]
    taken = World(ONE)
    taken.tunnel.taken.add(51820)
    taken.run((10, lambda: ports.append(taken.tunnel.standing)), until=12)
    assert ports[-1] is not None
    assert 49152 <= ports[-1].listen_port <= 65535


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_a_shortage_while_the_interface_is_built_is_waited_for(error: Exception) -> None:
    """No candidate is blamed for it."""
    world = World(TWO)
    world.fails["up"] = [error, error]
    world.run(until=10)
    assert Reason.UNCHECKED in {status.reason for status in world.published}
    assert world.at(9).healthy
    assert world.at(9).endpoint == f"{FIRST}:51820"


def test_a_socket_that_cannot_be_opened_is_a_name_that_was_not_found() -> None:
    """It is tried again."""
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address(FIRST),)
    world.alive.add(FIRST)
    world.fails["open"] = [NetworkError("no socket", "172.18.0.53")]
    world.run(until=10)
    failed = [it for it in world.published if it.reason is Reason.NOT_RESOLVED]
    assert {it.detail for it in failed if it.detail} == {"no socket: 172.18.0.53"}
    assert world.at(9).healthy


def test_a_name_without_an_address_that_can_be_reached_says_so() -> None:
    """Loopback, for example."""
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address("127.0.0.1"),)
    world.run(until=10)
    assert world.at(9).reason is Reason.NOT_RESOLVED
    assert world.at(9).detail == "no address that an uplink has a route to"


def test_work_that_takes_too_long_names_its_limit() -> None:
    """In seconds."""
    world = World(ONE)
    world.building = 60
    world.run(until=TIMING.work_limit + 1)
    assert world.at(TIMING.work_limit + 0.9).detail == "not done after 8 s"


def test_another_server_of_the_same_settings_takes_over_the_interface() -> None:
    """Its peers are replaced; an interface that was lost is made again."""
    world = World(TWO)
    world.run((10, kills(world, FIRST)), until=60)
    assert world.transcript.count(f"up {FIRST}:51820") == 1
    assert f"configure {SECOND}:51820" in world.transcript
    assert f"up {SECOND}:51820" not in world.transcript
    lost = World(TWO)
    lost.run((10, kills(lost, FIRST)), (20, lost.tunnel_lost), until=60)
    assert any(line.startswith("up ") for line in lost.transcript[40:])


def test_an_interface_that_does_not_take_other_peers_is_made_again() -> None:
    """Without a failed attempt."""
    world = World(TWO)
    world.fails["configure"] = [TunnelError("no")]
    world.run((10, kills(world, FIRST)), until=60)
    assert f"up {SECOND}:51820" in world.transcript
    assert world.at(59).healthy
    assert Reason.NOT_BUILT not in {status.reason for status in world.published}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(TunnelError("no such interface"), Reason.INTERFACE_LOST), (NOT_NOW, Reason.UNCHECKED)],
    ids=["gone", "shortage"],
)
def test_counters_that_cannot_be_read_mean_a_lost_interface_or_a_shortage(
    error: KernelError, reason: Reason
) -> None:
    """The one is built again, the other is waited for."""
    world = World(ONE)
    world.run((10, lambda: world.fails.update(status=[error])), until=20)
    assert reason in {status.reason for status in world.published if status.at > world.since(9)}
    assert bool(world.at(19).reconnects) == (reason is Reason.INTERFACE_LOST)
    assert world.at(19).healthy


def test_a_namespace_that_changes_as_the_interface_is_built_is_followed_at_once() -> None:
    """The way that was built is the one that is compared with from then on."""
    world = World(ONE)
    looks = [0]

    def facts() -> Facts:
        looks[0] += 1
        return ONE_UPLINK if looks[0] == 1 else other_uplink(ONE_UPLINK)

    world.network.facts = facts  # type: ignore[method-assign]
    world.run(until=20)
    assert looks[0] > 2, "control: it changed"
    assert world.at(19).healthy
    assert world.at(19).reconnects == (), "no other way was tried"


def test_a_stop_during_a_shortage_is_reported_with_its_problem() -> None:
    """Until the process ends, health shows why it takes so long."""
    world = World(ONE)
    world.run((9.9, lambda: world.fails.update(rules=[NOT_NOW] * 10)), until=10)
    last = world.published[-1]
    assert (last.state, last.healthy, last.reason) == ("stopping", False, Reason.UNCHECKED)
    assert last.detail == explained(NOT_NOW)


def test_a_gateway_is_locked_since_its_start() -> None:
    """On the clock of all times in a status."""
    world = World(ONE)
    world.run(until=5)
    assert world.published[0].state == "locked"
    assert world.published[0].since == pytest.approx(world.since(0), abs=0.01)
