"""Reads a service from each format that is not a compose file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.commands.check.compose import (
    name_of,
    service_of,
    text_from,
    translated_source,
)
from gateway.commands.check.inspected import translate_inspect
from gateway.commands.check.kubernetes import translate_kubernetes
from gateway.commands.check.quadlet import translate_quadlet
from gateway.commands.check.service import Service
from gateway.commands.check.translation import Translated
from gateway.commands.check.unraid import translate_unraid
from gateway.settings.findings import Findings

Translator = Callable[[str, str | None, str, Findings], Translated]
"""Takes the text, the name that is wanted, the name of the file, and findings."""

FORMATS: Final[dict[str, Translator]] = {
    "inspect": translate_inspect,
    "quadlet": translate_quadlet,
    "kubernetes": translate_kubernetes,
    "unraid": lambda text, _wanted, where, findings: translate_unraid(text, where, findings),
}
"""The formats by their option."""


def read_format(kind: str, file: Path, wanted: str | None, findings: Findings) -> Service:
    """Return the service in a file of some kind; `-` is the standard input. Raises ConfigError."""
    text = text_from(file, findings)
    name = file.stem if kind == "quadlet" and file.stem != "-" else wanted
    found = FORMATS[kind](text, name, name_of(file), findings)
    source = translated_source(file, found.document)
    return replace(service_of(source, found.service, findings), form=found.form)
