"""What to change in a service so that it works as the gateway, as lines to paste."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.commands.check.service import LIST, MAPPING, NEW, Service
from gateway.settings.values import safe_text

_YAML = "      - {}"
_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    LIST: ("      - {}={}", _YAML),
    MAPPING: ("      {}: {}", _YAML),
    NEW: ("      {}: {}", _YAML),
    "arguments": ("      --env {}={}", "      --cap-add {}"),
    "quadlet": ("Environment={}={}", "AddCapability={}"),
    "kubernetes": ('            - {{name: {}, value: "{}"}}', "                - {}"),
    "unraid": ("      variable {}, value {}", "      extra parameter --cap-add={}"),
}
"""How a variable and a capability are written in each form."""


@dataclass
class Advice:
    """The changes of one service.

    `variables` are to be set, those in `unset` to be removed, and `renamed` ones to get new names;
    `capabilities` are to be added, those in `needless` to be removed. `ports` are entries to remove
    from `ports:`, with their variables replaced, and `keys` are keys to remove. Ports and
    `network_mode` are those of the service that owns the network.
    """

    service: Service
    variables: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    needless: list[str] = field(default_factory=list)
    unset: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the changes as text: what to paste, then what to remove."""
        own, owner = safe_text(self.service.name), safe_text(self.service.owner.name)
        there = any(name in self.service.variables for name in self.variables)
        form, capability = _FORMS[self.service.form]
        if self.variables:
            yield f"To paste into the service {own}" + (
                ", in place of what is there:" if there else ":"
            )
            if self.service.form == NEW:
                yield "    environment:"
            yield from (form.format(name, value) for name, value in self.variables.items())
        if self.capabilities:
            yield f"To add to the capabilities of {own}:"
            yield from (capability.format(name) for name in self.capabilities)
        renamed = [f"      {name} to {new}" for name, new in self.renamed.items()]
        for said, lines in (
            (f"To rename in the variables of {own}:", renamed),
            (f"To remove from the variables of {own}:", [f"      {one}" for one in self.unset]),
            (
                f"To remove from the capabilities of {own}:",
                [f"      - {one}" for one in self.needless],
            ),
            (f"To remove from the ports of {owner}:", [f"      - {one}" for one in self.ports]),
            (f"To remove from the service {own}:", [f"    {key}:" for key in self.keys]),
        ):
            if lines:
                yield said
                yield from map(safe_text, lines)
