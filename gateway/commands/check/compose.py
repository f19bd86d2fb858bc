"""Reads one service of a compose file: its variables, mounted files and published ports.

`gateway check` also runs where Compose is not installed, so it reads the file itself. It accepts
the output of `docker compose config` too, in which Compose has merged everything.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gateway.commands.check.document import LARGEST, RESET, parse, read_text, text_of
from gateway.commands.check.envfile import env_file
from gateway.commands.check.interpolate import Interpolator
from gateway.commands.check.mounting import (
    Mount,
    Mounting,
    Mounts,
    as_list,
    as_mapping,
    is_there,
    report_missing_files,
)
from gateway.commands.check.neighbours import as_texts, names_of, neighbours
from gateway.commands.check.project import Layer, Project, Source, find_service, with_env_file
from gateway.commands.check.service import GATEWAYS, LIST, MAPPING, NEW, Service
from gateway.settings.findings import Findings, joined
from gateway.settings.values import safe_name, safe_text

DEFAULT_NAME: Final = "gateway"

STANDARD_INPUT: Final = Path("-")

_SINGLE: Final = (
    *("network_mode", "user", "entrypoint", "command", "healthcheck", "read_only", "privileged"),
    *("networks", "hostname", "container_name"),
)
"""Keys of which the last layer's counts."""

_ADDED: Final = ("cap_drop", "tmpfs", "labels", "expose")
"""Keys that add up."""

_READ: Final = (
    *("environment", "env_file", "volumes", "secrets", "configs", "cap_add", "ports"),
    *(*_SINGLE, *_ADDED),
)
"""The keys of a service that matter to the gateway."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def name_of(file: Path) -> str:
    """Return how messages name a compose file."""
    return "standard input" if file == STANDARD_INPUT else str(file)


def read_service(
    file: Path, name: str | None, shell: Mapping[str, str], findings: Findings
) -> Service:
    """Read the service `name`; variables in it are the shell's, else those of the file's `.env`.

    The file `-` is the standard input, with relative paths from the working directory. Raises
    ConfigError when there is no such service; other problems are added to `findings`.
    """
    return service_of(source_of(file, text_from(file, findings), shell, findings), name, findings)


def service_of(source: Source, name: str | None, findings: Findings) -> Service:
    """Return the service `name` of a project with the main file `source`, as `read_service`.

    Without a name it is the one called `gateway`, or else the only one with an image of a gateway.
    """
    return _service(source, name or _likely(source), findings, is_anchor=False)


def _likely(source: Source) -> str:
    images = {
        str(name): str(as_mapping(service).get("image", ""))
        for name, service in source.services.items()
    }
    ours = [name for name, image in images.items() if any(one in image for one in GATEWAYS)]
    return ours[0] if DEFAULT_NAME not in images and len(ours) == 1 else DEFAULT_NAME


def _service(first: Source, name: str, findings: Findings, *, is_anchor: bool) -> Service:
    """Return the service `name` of the project; an anchor's own anchor is not looked for."""
    project = find_service(first, name, findings)
    layers = [_ServiceLayer(layer, name, findings) for layer in project.layers]
    variables: dict[str, str] = {}
    for layer in layers:
        variables |= layer.env_files()
    for layer in layers:
        layer.add_environment(variables)
    keys: dict[str, Any] = {
        key: layer.said[key] for layer in layers for key in _SINGLE if key in layer.said
    }
    keys["image"] = str(
        next((it.service["image"] for it in reversed(project.layers) if "image" in it.service), "")
    )
    for key in _ADDED:
        keys[key] = [text for layer in layers for text in as_texts(layer.said.get(key))]
    kind, _, other = str(keys.get("network_mode", "")).partition(":")
    anchor = (
        _service(first, other, findings, is_anchor=True)
        if kind == "service" and other and not is_anchor
        else None
    )
    names = {*names_of(name, keys), *(anchor.names if anchor else ())}
    return Service(
        name,
        variables,
        _mounts(layers, project, variables, findings),
        frozenset(
            str(one).upper().removeprefix("CAP_")
            for layer in layers
            for one in as_list(layer.said.get("cap_add"))
        ),
        tuple(entry for layer in layers for entry in as_list(layer.said.get("ports"))),
        str(keys.get("privileged", "")).lower() == "true",
        any(
            "hold" in str(word).split() for it in layers for word in as_list(it.said.get("command"))
        ),
        anchor,
        keys,
        names_of(name, keys),
        tuple(neighbours(project, {name, other}, names)) if not is_anchor else (),
        _form([layer.said.get("environment") for layer in layers]),
    )


def _form(written: Sequence[Any]) -> str:
    """Return how the last of the layers that has variables writes them."""
    found = [LIST if isinstance(one, list) else MAPPING for one in written if one]
    return found[-1] if found else NEW


def text_from(file: Path, findings: Findings) -> str:
    """Return the text of a file, or of the standard input. Raises ConfigError with the reason."""
    where = name_of(file)
    try:
        if file == STANDARD_INPUT:
            return text_of(sys.stdin.buffer.read(LARGEST + 1))
        return read_text(file)
    except OSError as err:
        findings.problem(where, f"cannot be read ({err.strerror}); name another file")
        raise findings.to_error() from None
    except ValueError as err:
        findings.problem(where, str(err))
        raise findings.to_error() from None


def translated_source(file: Path, document: Mapping[str, Any]) -> Source:
    """Return what another format was translated to as a project that uses no variables."""
    folder = Path.cwd() if file == STANDARD_INPUT else file.absolute().parent
    return Source(name_of(file), folder, {}, dict(document))


def source_of(file: Path, text: str, shell: Mapping[str, str], findings: Findings) -> Source:
    """Return the main file of a project. Raises ConfigError if it is not a compose file."""
    where = name_of(file)
    folder = Path.cwd() if file == STANDARD_INPUT else file.parent
    variables = with_env_file(folder, shell, findings)
    document = parse(text, where, findings)
    path = None if file == STANDARD_INPUT else file.absolute()
    return Source(where, folder, variables, document, path)


def _mounts(
    layers: Sequence["_ServiceLayer"],
    project: Project,
    variables: Mapping[str, str],
    findings: Findings,
) -> Mounts:
    """Return what the layers mount; report missing files that matter."""
    tops: dict[str, dict[str, tuple[Any, Mounting]]] = {"secrets": {}, "configs": {}}
    for source in reversed(project.sources):
        reader = Interpolator(source.where, source.shell, findings)
        mounting = Mounting(source.where, source.folder, source.shell, findings)
        for kind, known in tops.items():
            said = as_mapping(reader.value(as_mapping(source.document.get(kind)), kind))
            known |= {name: (one, mounting) for name, one in said.items()}
    found: dict[PurePosixPath, Mount] = {}
    for layer in layers:
        found |= layer.mounting.mounts(layer.said, tops)
    report_missing_files(found, variables, findings)
    return found


class _ServiceLayer:
    """What one file says about the service, with its variables replaced."""

    def __init__(self, layer: Layer, name: str, findings: Findings) -> None:
        source, service = layer.source, layer.service
        self.where = source.where
        self.shell = source.shell
        self.findings = findings
        self.mounting = Mounting(source.where, source.folder, source.shell, findings)
        own = as_mapping(service.get("environment"))
        self.reset = {str(key) for key, value in own.items() if value is RESET}
        reader = Interpolator(source.where, source.shell, findings)
        self.said: dict[str, Any] = {
            key: reader.value(service[key], f"service {safe_text(name)} {key}")
            for key in _READ
            if key in service
        }

    def env_files(self) -> dict[str, str]:
        """Return the variables of the service's env files."""
        environ: dict[str, str] = {}
        for entry in as_list(self.said.get("env_file")):
            path = str(entry.get("path", "") if isinstance(entry, dict) else entry)
            required = not isinstance(entry, dict) or entry.get("required") != "false"
            place = self.mounting.host_path(path)
            if required or is_there(place):
                said = (
                    str(place)
                    if safe_text(path) == path
                    else f"{self.where} env_file {safe_text(path)}"
                )
                environ |= env_file(place, self.findings, self.shell, where=said)
        return environ

    def add_environment(self, environ: dict[str, str]) -> None:
        """Add the service's own variables to `environ`."""
        own = self.said.get("environment")
        pairs = own.items() if isinstance(own, dict) else self._pairs(as_list(own))
        for name in self.reset:
            environ.pop(name, None)
        for name, value in pairs:
            if isinstance(value, dict | list):
                self._wrong_variable(f"gives {safe_name(name)} more than a text")
            elif value is not None:
                environ[name] = str(value)
            elif name in self.shell:
                environ[name] = self.shell[name]

    def _pairs(self, entries: list[Any]) -> Iterator[tuple[str, str | None]]:
        """Yield the names and values of a list; None where the shell has the value."""
        seen: set[str] = set()
        for entry in entries:
            name, equals, value = str(entry).partition("=")
            name = name.strip()
            if isinstance(entry, dict | list):
                names = (
                    joined(safe_name(str(key)) for key in entry) if isinstance(entry, dict) else ""
                )
                self._wrong_variable(f"has an entry that is not text: {names or 'a list'}")
            elif not _NAME.fullmatch(name):
                self._wrong_variable("has an entry without a valid name")
            else:
                if name in seen:
                    self.findings.warn(
                        self.where, f"environment has {safe_name(name)} twice; the last one counts"
                    )
                seen.add(name)
                yield name, value if equals else None

    def _wrong_variable(self, what: str) -> None:
        self.findings.problem(self.where, f"environment {what}; write NAME=value")
