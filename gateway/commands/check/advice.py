"""What to change in a service so that it works as the gateway, as lines to paste."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.commands.check.service import Service
from gateway.settings.values import safe_text


@dataclass
class Advice:
    """The changes of one service.

    `variables` are to be set, those in `unset` to be removed, `capabilities` to be added. `ports`
    are entries to remove from `ports:`, with their variables replaced, and `keys` are keys to
    remove. Ports and `network_mode` are those of the service that owns the network.
    """

    service: Service
    variables: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    unset: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the changes as text: what to paste, then what to remove."""
        own, owner = self.service.name, self.service.owner.name
        if self.variables:
            there = any(name in self.service.variables for name in self.variables)
            said = ", in place of what is there" if there else ""
            yield f"To paste into the service {safe_text(own)}{said}:"
            if self.service.lists_variables is None:
                yield "    environment:"
            for name, value in self.variables.items():
                pair = f"- {name}={value}" if self.service.lists_variables else f"{name}: {value}"
                yield f"      {pair}"
        if self.capabilities:
            yield f"To add to `cap_add:` of {safe_text(own)}:"
            yield from (f"      - {name}" for name in self.capabilities)
        if self.unset:
            yield f"To remove from `environment:` of {safe_text(own)}:"
            yield from (f"      {name}" for name in self.unset)
        if self.ports:
            yield f"To remove from `ports:` of {safe_text(owner)}:"
            yield from (f"      - {safe_text(entry)}" for entry in self.ports)
        if self.keys:
            yield f"To remove from the service {safe_text(own)}:"
            yield from (f"    {key}:" for key in self.keys)
