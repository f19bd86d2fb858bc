"""Which network namespace holds what: links, rules and routes.

In the topology `shared`, the workloads join the gateway's namespace, which holds the uplinks and
the tunnel. In `vault` they are in another one, which holds the tunnel and no uplink. Each namespace
has a ruleset and a routing of its own, so both belong to the namespace and not to the gateway.
"""

from enum import Enum

from gateway.model.frozen import frozen
from gateway.policy.firewall import closed
from gateway.policy.routing import LOCKED
from gateway.policy.rules import Ruleset
from gateway.policy.tables import Routing


class LinkKind(Enum):
    """The kinds of links that a gateway needs somewhere."""

    UPLINKS = "uplinks"
    TUNNEL = "tunnel"


@frozen
class Place:
    """What one network namespace must hold.

    `links` are the kinds of links that it has. `closed` and `locked` are the rules and routes with
    which no packet leaves by any of them; they are in force before the configuration is read.
    """

    name: str
    links: frozenset[LinkKind]
    closed: Ruleset
    locked: Routing


@frozen
class Topology:
    """The namespaces of one gateway; each kind of link is in exactly one of them."""

    name: str
    places: tuple[Place, ...]

    def __post_init__(self) -> None:
        """Raise ValueError where a kind of link is nowhere, or in two namespaces."""
        for kind in LinkKind:
            if sum(kind in place.links for place in self.places) != 1:
                raise ValueError(f"{self.name}: not exactly one namespace has the {kind.value}")

    def holder_of(self, kind: LinkKind) -> Place:
        """Return the namespace that has the links of this `kind`."""
        return next(place for place in self.places if kind in place.links)


SHARED = Topology("shared", (Place("shared", frozenset(LinkKind), closed(), LOCKED),))
"""One namespace for everything."""

VAULT = Topology(
    "vault",
    (
        Place("vault", frozenset({LinkKind.TUNNEL}), closed(), LOCKED),
        Place("gateway", frozenset({LinkKind.UPLINKS}), closed(), LOCKED),
    ),
)
"""The tunnel in a namespace without uplinks, the vault; its encrypted socket is the gateway's."""
