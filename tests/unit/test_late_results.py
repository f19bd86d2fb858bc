"""What happens to work when the loop does not expect its result: none counts twice or gets lost.

Times are seconds of a run on a clock that passes by itself.
"""

import asyncio
import errno

import pytest

from gateway.errors import NetworkError
from tests.fakes.world import World
from tests.unit.test_supervisor import ONE

NOT_NOW = NetworkError("not now", "rules", errno.EAGAIN)


@pytest.mark.promise("P1")
def test_a_producer_that_fails_while_a_stop_waits_for_a_shortage_is_closed_too() -> None:
    """It cancels the loop, which goes on trying to close."""
    world = World(ONE)

    async def later() -> None:
        await asyncio.sleep(10.5)
        raise RuntimeError("a fault")

    world.others["other"] = later
    with pytest.raises(RuntimeError, match="a fault"):
        world.run((9.9, lambda: world.fails.update(rules=[NOT_NOW] * 20)), until=10)
    assert world.clock.now > world.since(10.5), "control: there was a shortage"
    assert world.firewall.summary == "closed"
