"""Reads an Unraid template, an XML file with one container."""

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.parsers import expat

from gateway.commands.check.arguments import keys_of, merged, split
from gateway.commands.check.translation import Translated, literal
from gateway.settings.findings import Findings
from gateway.settings.values import safe_name

_SHARED: Final = ("host", "none", "container:")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_MOST_ELEMENTS: Final = 10_000


class _Template:
    """The elements below `Container`: texts by name, and the `Config` ones."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.configs: list[tuple[Mapping[str, str], list[str]]] = []
        self.path: list[str] = []
        self.count = 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        self.count += 1
        if self.count > _MOST_ELEMENTS:
            raise ValueError("has too many elements")
        if self.path == ["Container", "Config"]:
            self.configs.append((attributes, []))

    def end(self, _name: str) -> None:
        self.path.pop()

    def data(self, text: str) -> None:
        if self.path == ["Container", "Config"]:
            self.configs[-1][1].append(text)
        elif len(self.path) == 2:  # noqa: PLR2004 - a child of the root
            self.texts[self.path[1]] = self.texts.get(self.path[1], "") + text


def _refuse(*_arguments: object) -> None:
    raise ValueError("has a document type, which no template needs")


def translate_unraid(text: str, where: str, findings: Findings) -> Translated:
    """Return the container of a template as a compose document. Raises ConfigError."""
    template = _Template()
    parser = expat.ParserCreate("utf-8")  # which the text is, also where it names another encoding
    parser.StartElementHandler = template.begin
    parser.EndElementHandler = template.end
    parser.CharacterDataHandler = template.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(text.encode(), True)
        if not template.configs and "Repository" not in template.texts:
            raise ValueError("is not an Unraid template")  # noqa: TRY301
        service = _service(template, where, findings)
    except (ValueError, expat.ExpatError) as err:
        reason = str(err) if isinstance(err, ValueError) else "is not valid XML"
        findings.problem(where, f"{reason}; name a template of a container")
        raise findings.to_error() from None
    name = template.texts.get("Name", "").strip() or "gateway"
    return Translated({"services": {name: literal(service)}}, name, "unraid")


def _service(template: _Template, where: str, findings: Findings) -> dict[str, Any]:
    texts = {name: text.strip() for name, text in template.texts.items()}
    service: dict[str, Any] = {"image": texts.get("Repository", "")}
    network = texts.get("Network", "")
    if network.startswith(_SHARED):
        service["network_mode"] = network
    service["privileged"] = texts.get("Privileged", "false").lower()
    for attributes, parts in template.configs:
        value, kind = _value(attributes, "".join(parts).strip()), attributes.get("Type", "")
        target, mode = attributes.get("Target", ""), attributes.get("Mode", "")
        if kind == "Variable" and not _NAME.fullmatch(target):
            findings.warn(
                where, f"has a variable {safe_name(target)}, which is not a name; correct its key"
            )
            continue
        match kind:
            case "Variable" if value:
                merged(service, {"environment": [f"{target}={value}"]})
            case "Port" if value:
                merged(service, {"ports": [f"{value}:{target}/{mode or 'tcp'}"]})
            case "Path" if value:
                merged(service, {"volumes": [f"{value}:{target}"]})
            case "Label":
                merged(service, {"labels": [f"{target}={value}"]})
            case _:
                pass  # a device, or a setting that is empty
    if texts.get("PostArgs"):
        service["command"] = split(texts["PostArgs"])
    return merged(service, keys_of(split(texts.get("ExtraParams", ""))))


def _value(attributes: Mapping[str, str], text: str) -> str:
    """Return the text of a setting, or its default: of choices, which | separates, the first."""
    default = attributes.get("Default", "")
    is_choice = attributes.get("Type") == "Variable" and text in ("", default)
    return default.partition("|")[0] if is_choice else text or default
