"""The mark of the encrypted flow: secret where the gateway draws it, and what others see of it."""

from dataclasses import replace

from gateway.policy.marks import SHOWN, mask, shown, with_secret_mark
from tests.scenarios import SCENARIOS

CHOSEN = 51820
DRAWN = 0x1234_5678
SECRET = DRAWN | SHOWN


def test_of_a_secret_mark_routing_rules_show_one_bit() -> None:
    """The highest one, whatever the others are."""
    assert SHOWN == 1 << 31
    assert (shown(SECRET), mask(SECRET)) == (SHOWN, SHOWN)
    assert (shown(SHOWN), mask(SHOWN)) == (SHOWN, SHOWN)


def test_a_chosen_mark_is_shown_and_compared_whole() -> None:
    """It is not a secret, and other marks share its bits."""
    assert (shown(CHOSEN), mask(CHOSEN)) == (CHOSEN, 0xFFFF_FFFF)
    assert (shown(SHOWN - 1), mask(SHOWN - 1)) == (SHOWN - 1, 0xFFFF_FFFF)


def test_a_mark_is_drawn_where_none_is_chosen() -> None:
    """The drawn number and the bit that makes it secret; a chosen one stays, whatever it is."""
    config = SCENARIOS["connected"][1]
    tunnels = tuple(replace(config.tunnels[0], fwmark=mark) for mark in (None, CHOSEN, 0))
    made = with_secret_mark(replace(config, tunnels=tunnels), DRAWN)
    assert [tunnel.fwmark for tunnel in made.tunnels] == [SECRET, CHOSEN, 0]
    assert replace(made, tunnels=tunnels) == replace(config, tunnels=tunnels), "nothing else"
