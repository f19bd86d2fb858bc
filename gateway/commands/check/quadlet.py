"""Reads a Podman quadlet: a unit file `NAME.container` (podman-systemd.unit(5))."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from gateway.commands.check.arguments import keys_of, merged, split
from gateway.commands.check.translation import Translated, literal, report_unknown
from gateway.settings.findings import Findings

_LISTS: Final = {
    "environmentfile": "env_file",
    "volume": "volumes",
    "publishport": "ports",
    "exposehostport": "expose",
    "tmpfs": "tmpfs",
}
"""Keys whose every line is one entry."""

_WORDS: Final = {
    "environment": "environment",
    "addcapability": "cap_add",
    "dropcapability": "cap_drop",
    "label": "labels",
}
"""Keys whose lines have several entries, in quotes where they have blanks."""

_SINGLE: Final = {
    "image": "image",
    "user": "user",
    "hostname": "hostname",
    "containername": "container_name",
    "readonly": "read_only",
    "entrypoint": "entrypoint",
}
_SHARED: Final = ("host", "none", "container:")


def translate_quadlet(text: str, stem: str | None, where: str, findings: Findings) -> Translated:
    """Return the container of a quadlet as a compose document; `stem` is its name without one.

    Raises ConfigError if it is not one.
    """
    lines: dict[str, list[str]] = {}
    for number, key, value in _settings(text):
        if not value:
            lines.pop(key, None)  # an empty assignment resets (systemd.syntax(7))
            continue
        try:
            words = split(value) if key in (*_WORDS, "exec", "podmanargs") else [_at_home(value)]
        except ValueError:
            findings.problem(f"{where} line {number}", "has an unclosed quote; close it")
            continue
        lines.setdefault(key, []).extend(words)
    if not lines:
        findings.problem(where, "has no [Container] section; name a quadlet NAME.container")
        raise findings.to_error()
    service = _service(lines, where, findings)
    name = str(service.get("container_name") or stem or "gateway")
    held = {one["source"]: {"external": True} for one in service.get("secrets", ())}
    document = {"services": {name: literal(service)}, "secrets": literal(held)}
    return Translated(document, name, "quadlet")


def _settings(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, key in small letters and value of each setting of `[Container]`."""
    section, joined, first = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(("#", ";")):
            continue
        first = first if joined else number
        joined += stripped.removesuffix("\\") + (" " if stripped.endswith("\\") else "")
        if stripped.endswith("\\"):
            continue
        if joined.startswith("[") and joined.endswith("]"):
            section = joined.lower()
        elif section == "[container]" and "=" in joined:
            key, _, value = joined.partition("=")
            yield first, key.strip().lower(), value.strip()
        joined = ""


def _at_home(value: str) -> str:
    """Return a value with the specifier of the home directory as shells write it."""
    return value.replace("%h", "~", 1) if value.startswith("%h") else value


def _service(lines: Mapping[str, Sequence[str]], where: str, findings: Findings) -> dict[str, Any]:
    service: dict[str, Any] = {}
    for key, values in lines.items():
        if key in _LISTS or key in _WORDS:
            service[_LISTS.get(key) or _WORDS[key]] = list(values)
        elif key in _SINGLE:
            service[_SINGLE[key]] = values[-1]
        elif key == "exec":
            service["command"] = list(values)
        elif key == "healthcmd":
            service["healthcheck"] = _health(values[-1])
        elif key == "network":
            for network in values:
                mode = _mode(network)
                if mode:
                    service["network_mode"] = mode
    for secret in lines.get("secret", ()):
        merged(service, _secret(secret, where, findings))
    return merged(service, keys_of(lines.get("podmanargs", ())))


def _health(command: str) -> dict[str, Any]:
    return {"disable": "true"} if command == "none" else {"test": command}


def _mode(network: str) -> str | None:
    """Return the mode of a network that is another's, None for one of its own."""
    if network.endswith(".container"):
        return f"container:{PurePosixPath(network).stem}"
    return network if network.startswith(_SHARED) else None


def _secret(text: str, where: str, findings: Findings) -> dict[str, Any]:
    """Return what a secret sets; Podman has its value."""
    name, _, rest = text.partition(",")
    options = dict(one.partition("=")[::2] for one in rest.split(","))
    if options.get("type") != "env":
        return {"secrets": [{"source": name, "target": options.get("target") or name}]}
    variable = options.get("target") or name
    value = report_unknown(variable, f"the secret {name}", where, findings)
    return {"environment": [f"{variable}={value}"]} if value else {}
