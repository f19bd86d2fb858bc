"""A provider's list: how the supervisor obtains it, and what it does where it cannot."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.errors import NetworkError
from gateway.model import Config, ServerList
from gateway.policy.fetching import backoff
from gateway.policy.reload import Fault, Outcome, not_reloaded
from gateway.policy.states import Reason
from gateway.policy.timing import Moment, Timing
from tests.fakes.world import World
from tests.scenarios import IPV4_ONLY, LISTED, TWO_UPLINKS

HOST = "api.example"
FIRST, SECOND = ip_address("203.0.113.5"), ip_address("203.0.113.6")
READY = Config((IPV4_ONLY,))


def world() -> World:
    """Return a world in which the list can be fetched, and leads to a server that answers."""
    made = World(Config((LISTED,)))
    made.names[HOST] = (FIRST,)
    made.listed = READY
    made.alive = {str(endpoint.address) for endpoint in IPV4_ONLY.endpoints}
    return made


def calls(made: World, *words: str) -> list[str]:
    """Return the lines of the transcript that begin with one of `words`."""
    return [line for line in made.transcript if line.startswith(words)]


def test_a_list_leads_to_a_connection() -> None:
    """Look-up, transfer, reading the configuration again, tunnel; each hole only for its flow."""
    made = world()
    made.run(until=20)
    assert calls(made, "open", "ask", "fetch", "read again", "up") == [
        "open", f"ask {HOST}", f"open list {FIRST}", "fetch mullvad", "read again",
        "up 198.51.100.10:51820",
    ], made.transcript  # fmt: skip
    assert made.at(19).healthy
    assert made.at(0.2).state == "fetching"
    assert made.at(0.2).endpoint == HOST


def test_each_address_of_the_host_is_tried_before_a_pause() -> None:
    """One that refuses costs no time."""
    made = world()
    made.names[HOST] = (FIRST, SECOND)
    made.fails["fetched"] = [NetworkError("connect: refused", str(FIRST)), None]
    made.run(until=20)
    assert calls(made, "open list") == [f"open list {FIRST}", f"open list {SECOND}"]
    assert len(calls(made, "ask")) == 1
    assert made.at(19).healthy


@pytest.mark.parametrize("broken", ["open", "ask", "open list", "fetch", "fetched"])
def test_failures_are_named_and_tried_again_less_and_less_often(broken: str) -> None:
    """A provider's API is not to be hammered: seven attempts in ten minutes."""
    made = world()
    made.fails[broken] = [NetworkError("not now", HOST) for _ in range(1000)]
    made.run(until=600)
    assert 6 <= len(calls(made, "open") if broken == "open" else calls(made, "ask")) <= 8
    status = made.at(599)
    assert (status.state, status.reason) == ("fetching", Reason.NO_LIST)
    assert "not now" in status.detail
    assert not status.healthy
    assert calls(made, "up") == []


def test_it_is_tried_as_soon_as_there_is_another_way() -> None:
    """Before the pause ends."""
    made = world()
    made.fails["fetched"] = [NetworkError("not now", HOST) for _ in range(5)]

    def attach() -> None:
        made.fails.clear()
        made.facts = TWO_UPLINKS
        made.supervisor.kernel_changed()

    made.run((100, attach), until=104)
    assert made.at(103).healthy


def test_a_transfer_is_cut_off_when_the_way_changes() -> None:
    """What arrives on it would come by a route that is gone."""
    made = world()
    made.fetching = 20.0

    def attach() -> None:
        made.fetching = 0.5
        made.facts = TWO_UPLINKS
        made.supervisor.kernel_changed()

    made.run((5, attach), until=12)
    assert len(calls(made, "fetch")) == 2
    assert made.at(11).healthy


def test_a_transfer_that_never_ends_is_given_up() -> None:
    """After `fetch_limit`."""
    made = world()
    made.fetching = 10_000.0
    made.run(until=55)
    assert f"not done after {Timing().fetch_limit:g} s" in made.at(54).detail


def test_a_list_without_a_server_for_this_configuration_is_not_fetched_again_and_again() -> None:
    """The faults are in the status; after an hour it may have changed."""
    made = world()
    fault = Fault("SERVER_COUNTRIES", "names no country of the list")
    made.listed = not_reloaded(1000.0, Outcome.REFUSED, (fault,))
    made.run(until=3000)
    assert len(calls(made, "fetch")) == 1
    assert made.at(2999).detail == "SERVER_COUNTRIES names no country of the list"
    assert made.at(2999).reason is Reason.NO_LIST
    later = world()
    later.listed = made.listed
    later.run(until=3700)
    assert len(calls(later, "fetch")) == 2


def test_the_kernel_is_compared_while_a_list_arrives() -> None:
    """P17 holds then too."""
    made = world()
    made.fetching = 30.0
    made.run(until=25)
    assert len(calls(made, "routing drift")) >= 4, made.transcript


def test_a_configuration_that_needs_no_list_ends_the_search() -> None:
    """A reload with an endpoint of its own connects at once."""
    made = world()
    made.fails["fetched"] = [NetworkError("not now", HOST) for _ in range(100)]

    def reload() -> None:
        made._read_again()  # noqa: SLF001 - what SIGHUP leads to

    made.run((50, reload), until=55)
    assert made.at(54).healthy


def test_a_running_tunnel_without_a_list_is_closed_for_it() -> None:
    """A reload to another provider: red until its list is there, then connected again."""
    made = World(READY)
    made.names[HOST] = (FIRST,)

    def other() -> None:
        made.listed = Config((LISTED,))
        made._read_again()  # noqa: SLF001 - what SIGHUP leads to
        made.listed = READY

    made.run((10, other), until=30)
    assert "fetching" in {status.state for status in made.published}
    assert made.at(29).healthy


def test_pauses_double_up_to_five_minutes() -> None:
    """With a quarter to either side."""
    timing = Timing()
    waits = [
        backoff(number, Moment(0.0, timing, 0.5), timing.fetch_first, timing.fetch_last)
        for number in range(1, 12)
    ]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300]


def test_the_list_says_where_it_is() -> None:
    """The name of its host is what is looked up."""
    listed = replace(LISTED, listed=ServerList("x", "lists.example", "/"))
    assert listed.names == ("lists.example",)
