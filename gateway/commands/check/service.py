"""What is known of a service that is to become the gateway, independent of the file it is from."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from gateway.commands.check.mounting import Mounts
from gateway.model.frozen import frozen
from gateway.settings.values import safe_text

GATEWAYS: Final = ("portcullis", "gluetun", "wireguard")
"""Parts of the names of images that become the gateway, or are it."""

LIST, MAPPING, NEW = "list", "mapping", "new"
"""How a compose file writes variables; `NEW` if it has none."""


@frozen
class Neighbour:
    """Another service of the same project: whether it `joins` the gateway's network.

    `texts` are its variables (as NAME=value), labels, command and health check; `image` is what it
    runs.
    """

    name: str
    joins: bool
    texts: tuple[str, ...] = ()
    image: str = ""


@frozen
class Service:
    """What a file says about a service; `ports` are the entries as they are written.

    `names` are those under which others reach it. `keys` are the other keys of the service, as
    Compose calls them. `anchor` is the service whose network it has (`network_mode: service:NAME`);
    `holds` says whether it runs `gateway hold`. `form` is how its variables are written.
    """

    name: str
    variables: Mapping[str, str]
    mounts: Mounts = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    ports: tuple[Any, ...] = ()
    privileged: bool = False
    holds: bool = False
    anchor: "Service | None" = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    form: str = MAPPING

    @property
    def owner(self) -> "Service":
        """The service that owns the network: the anchor, or this one."""
        return self.anchor or self

    def set_by(self, key: str) -> Sequence[str]:
        """Return the words of a key that is written as a text or as a list."""
        value = self.keys.get(key)
        if isinstance(value, list):
            return [str(word) for word in value]
        return str(value).split() if value not in (None, "") else []


def for_service(text: str, service: Service) -> str:
    """Return a message with the service's own name in what it suggests for workloads."""
    example, own = "network_mode: service:gateway", f"network_mode: service:{service.owner.name}"
    return text.replace(example, safe_text(own))
