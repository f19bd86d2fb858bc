"""What is reported of the listed holes: all of them, and whether the rules let anything through."""

import pytest

from gateway.model import Config
from gateway.policy.holes import open_in
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.listed import MOST_LISTED, listed_holes
from gateway.policy.report import Hole, HoleKind
from gateway.policy.states import Locked, Reason, State, Stopping
from tests.scenarios import (
    CLOSED_WHILE_DOWN,
    DUAL,
    HOLES,
    IPV4_ONLY,
    MANY_HOLES,
    PUBLIC_SUBNETS,
    connected,
    connecting,
    fetching,
    resolving,
)

DOWN = [connecting(IPV4_ONLY), resolving("192.168.1.53"), fetching(None)]


def holes(state: State, config: Config = HOLES, *codes: LimitCode) -> dict[HoleKind, Hole]:
    """Return the reported holes by their kind."""
    found = listed_holes(state, config, [Limit(code, "", "") for code in codes])
    assert [it.kind for it in found] == list(HoleKind)
    return {it.kind: it for it in found}


def are_open(state: State, config: Config = HOLES, *codes: LimitCode) -> set[str]:
    """Return the kinds of which something is open."""
    return {str(kind) for kind, it in holes(state, config, *codes).items() if it.is_open}


def test_everything_listed_is_open_with_a_tunnel() -> None:
    """With the texts that the log has."""
    found = holes(connected(DUAL))
    assert all(it.is_open for it in found.values())
    assert found[HoleKind.LAN].listed == tuple(map(str, HOLES.outbound_subnets))
    assert found[HoleKind.INPUT_PORTS].listed == tuple(map(str, HOLES.input_ports))
    assert found[HoleKind.TUNNEL_PORTS].listed == ("6881-6889/tcp", "6881-6889/udp")
    assert found[HoleKind.RESOLVERS].listed[0].startswith(str(DUAL.dns[0]))
    public = holes(connected(IPV4_ONLY), PUBLIC_SUBNETS)[HoleKind.LAN]
    assert set(map(str, PUBLIC_SUBNETS.public_subnets)) <= set(public.listed)


@pytest.mark.parametrize("state", DOWN, ids=lambda it: type(it).__name__)
def test_without_a_tunnel_input_ports_alone_are_open(state: State) -> None:
    """If the user has not decided otherwise; what is listed is reported all the same."""
    assert are_open(state) == {"input_ports"}
    assert are_open(state, CLOSED_WHILE_DOWN) == set()
    assert holes(state)[HoleKind.LAN].listed
    assert open_in(state, HOLES)[0].input_ports  # control: the rules say the same


@pytest.mark.parametrize("state", [Locked(0.0, Reason.STARTING), Stopping(0.0)], ids=repr)
def test_a_closed_gateway_opens_nothing(state: State) -> None:
    """While it starts and while it stops."""
    assert are_open(state) == set()
    assert not holes(state)[HoleKind.RESOLVERS].listed


def test_what_is_not_listed_is_not_open() -> None:
    """A tunnel alone."""
    found = holes(connected(IPV4_ONLY), Config((IPV4_ONLY,)))
    assert {str(kind) for kind, it in found.items() if it.listed} == {"resolvers"}
    assert are_open(connected(IPV4_ONLY), Config((IPV4_ONLY,))) == {"resolvers"}


def test_a_vault_that_cannot_pass_holes_has_none_open() -> None:
    """What is in the tunnel is."""
    assert are_open(connected(DUAL), HOLES, LimitCode.NO_HOLES) == {"resolvers", "tunnel_ports"}
    assert "lan" in are_open(connected(DUAL), HOLES, LimitCode.NO_IPV6_HOLES)


def test_long_lists_are_cut() -> None:
    """They have to fit into an answer that the health check reads."""
    listed = holes(connected(IPV4_ONLY), MANY_HOLES)[HoleKind.INPUT_PORTS].listed
    assert len(listed) == MOST_LISTED + 1
    assert listed[-1] == f"and {len(MANY_HOLES.input_ports) - MOST_LISTED} more"
