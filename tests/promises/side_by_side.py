"""Tests that wait rather than work, run at the same time, each in a lab of its own.

A story is such a test's body. The first test of a module that asks for `stories` starts the stories
of all tests of the module that are going to run; each test then takes the outcome of its own.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.firewalls import VARIABLE, firewall_of

Story = Callable[[], None]


class Stories:
    """The stories of one module, running."""

    def __init__(self, running: dict[str, "Future[None]"]) -> None:
        """Take the futures by the names of the tests that they belong to."""
        self._running = running

    def end_of(self, request: pytest.FixtureRequest) -> None:
        """Wait until the story of the test is over; raise what it raised."""
        self._running[request.node.originalname].result()


def run(request: pytest.FixtureRequest, reported: dict[str, Story]) -> Iterator[Stories]:
    """Run those stories of `reported`, by names of tests, whose tests are going to run.

    On the firewall that is in force now; on the other one they have another turn.
    """
    now = {None, os.environ.get(VARIABLE)}
    wanted = {
        item.originalname
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path == request.path
        and firewall_of(item) in now
    }
    with ThreadPoolExecutor(max_workers=len(reported)) as pool:
        yield Stories(
            {name: pool.submit(story) for name, story in reported.items() if name in wanted}
        )
