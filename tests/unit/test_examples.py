"""The states that `gateway check --rules` shows, each with its title."""

from dataclasses import replace
from ipaddress import ip_address

from gateway.model import Config, NamedEndpoint
from gateway.policy.examples import DRAWN_MARK, NOT_YET_KNOWN, each_state
from gateway.policy.states import Connected, Connecting, Locked, Resolving
from tests.scenarios import CHOSEN, CHOSEN_MARK, IPV4_ONLY, PEER

UNMARKED = replace(IPV4_ONLY, fwmark=None)  # type: ignore[arg-type]  # as configured
NAMED = replace(UNMARKED, peers=(replace(PEER, endpoint=NamedEndpoint("vpn.example", 7)),))  # type: ignore[arg-type]


def test_one_tunnel_has_no_number() -> None:
    """Closed, connecting, connected."""
    states = dict(each_state(Config((UNMARKED,))))
    assert list(states) == ["Locked, and stopping", "Connecting", "Connected"]
    locked, connecting, connected = states.values()
    assert isinstance(locked, Locked)
    assert isinstance(connecting, Connecting)
    assert isinstance(connected, Connected)
    assert connecting.built
    assert connecting.tunnel.fwmark == connected.tunnel.fwmark == DRAWN_MARK


def test_several_tunnels_are_numbered_and_a_name_is_looked_up_first() -> None:
    """With Docker's resolver, unless another one is configured."""
    config = Config((CHOSEN, NAMED))
    titles = [title for title, _ in each_state(config)]
    assert titles == [
        "Locked, and stopping",
        "Connecting with tunnel 1",
        "Connected with tunnel 1",
        "Looking up the server's name with tunnel 2",
        "Connecting with tunnel 2",
        "Connected with tunnel 2",
    ]
    states = dict(each_state(config))
    resolving = states["Looking up the server's name with tunnel 2"]
    assert isinstance(resolving, Resolving)
    assert resolving.query is not None
    assert str(resolving.query.resolver) == "127.0.0.11"
    first, second = states["Connected with tunnel 1"], states["Connected with tunnel 2"]
    assert isinstance(first, Connected)
    assert isinstance(second, Connected)
    assert (first.tunnel.fwmark, second.tunnel.fwmark) == (CHOSEN_MARK, DRAWN_MARK)
    assert [it.address for it in second.tunnel.endpoints] == [NOT_YET_KNOWN]
    chosen = replace(config, endpoint_resolver=ip_address("192.0.2.53"))
    resolving = dict(each_state(chosen))["Looking up the server's name with tunnel 2"]
    assert isinstance(resolving, Resolving)
    assert resolving.query is not None
    assert str(resolving.query.resolver) == "192.0.2.53"
