"""Which namespace holds what."""

import pytest

from gateway.policy.firewall import closed
from gateway.policy.routing import LOCKED
from gateway.policy.topology import SHARED, LinkKind, Place, Topology


def test_one_namespace_has_everything_when_it_is_shared() -> None:
    """Uplinks and tunnel, with the rules and routes that close both."""
    (place,) = SHARED.places
    assert all(SHARED.holder_of(kind) is place for kind in LinkKind)
    assert (place.closed, place.locked) == (closed(), LOCKED)
    assert SHARED.name == place.name == "shared"


def test_each_kind_of_link_may_have_a_namespace_of_its_own() -> None:
    """Then its rules and routes are its own too."""
    vault, outside = (
        Place(name, frozenset({kind}), closed(), LOCKED)
        for name, kind in (("vault", LinkKind.TUNNEL), ("outside", LinkKind.UPLINKS))
    )
    split = Topology("split", (vault, outside))
    assert (split.holder_of(LinkKind.TUNNEL), split.holder_of(LinkKind.UPLINKS)) == (vault, outside)


@pytest.mark.parametrize("links", [[], [{LinkKind.UPLINKS}], [set(LinkKind), {LinkKind.TUNNEL}]])
def test_no_link_is_without_a_namespace_or_in_two(links: list[set[LinkKind]]) -> None:
    """The rules of a link could be missing, or contradict each other."""
    places = tuple(
        Place(str(n), frozenset(kinds), closed(), LOCKED) for n, kinds in enumerate(links)
    )
    with pytest.raises(ValueError, match="exactly one") as caught:
        Topology("wrong", places)
    assert str(caught.value).startswith("wrong: ")
    assert str(caught.value).endswith((" the uplinks", " the tunnel"))
