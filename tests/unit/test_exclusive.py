"""Links that are kept down for a queue of another program's, and come up again."""

import errno
from collections.abc import Collection, Iterable

import pytest

from gateway.errors import NetworkError
from gateway.system.exclusive import ExclusiveLinks
from gateway.system.netns import OWN

LINK = 2


class Queues:
    """Queues of one link, which another program has while `taken` is set."""

    netns = OWN

    def __init__(self) -> None:
        self.taken = True

    def claim(self, index: int) -> None:
        """Hold them, or find them taken."""
        if self.taken:
            raise NetworkError("hold queue 0: Device or resource busy", str(index), errno.EBUSY)

    def forget_all_but(self, indexes: Iterable[int]) -> None:
        """Hold none of others."""

    def close(self) -> None:
        """Give them back."""


class Switch:
    """The switch of that link; `fails` makes the next setting up fail."""

    def __init__(self, *, up: bool) -> None:
        self.up = up
        self.fails = False

    def pull(self, only: Collection[int]) -> tuple[str, ...]:
        """Set it down."""
        self.up = self.up and LINK not in only
        return ()

    def plug(self, but: Collection[int] = ()) -> tuple[str, ...]:
        """Set it up."""
        if self.fails:
            self.fails = False
            raise TimeoutError
        self.up = self.up or LINK not in but
        return ()


class Links(ExclusiveLinks):
    """The links of a namespace that has this one."""

    def _links(self) -> dict[int, str]:
        return {LINK: "eth0"}


def links(*, up: bool) -> tuple[Links, Queues, Switch]:
    """Return all of it."""
    queues, switch = Queues(), Switch(up=up)
    return Links(queues, lambda _: False, switch), queues, switch  # type: ignore[arg-type]


@pytest.mark.promise("P14")
def test_a_link_is_down_while_another_program_has_a_queue() -> None:
    """And the reason names it."""
    exclusive, queues, switch = links(up=True)
    exclusive.enforce()
    assert (switch.up, list(exclusive.down)) == (False, [LINK])
    assert "eth0" in exclusive.kept_down[0]
    queues.taken = False
    exclusive.enforce()
    assert (switch.up, exclusive.kept_down) == (True, ())


def test_a_link_that_could_not_be_set_up_is_tried_again() -> None:
    """A failure in the moment when its queue is free is not the last word."""
    exclusive, queues, switch = links(up=True)
    exclusive.enforce()
    queues.taken, switch.fails = False, True
    with pytest.raises(NetworkError):
        exclusive.enforce()
    assert not switch.up
    exclusive.enforce()
    assert switch.up


def test_a_link_that_an_earlier_gateway_set_down_comes_up_too() -> None:
    """Also where its queue becomes free before the first look at it."""
    exclusive, queues, switch = links(up=False)
    exclusive.enforce()
    switch.plug(exclusive.down)
    queues.taken = False
    exclusive.enforce()
    assert switch.up
