"""Finds the files of a compose project: the main file, and those it extends and includes.

The rules are those of the Compose specification, "Extend", "Include" and "Merge". Only local
files are followed. A file that is included has its own folder for relative paths and its own
`.env`, over which the including project's variables win; a file that is extended has only its own
folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

from gateway.commands.check.document import (
    RESET,
    OverridingList,
    OverridingMapping,
    parse,
    read_text,
)
from gateway.commands.check.envfile import env_file
from gateway.commands.check.interpolate import Interpolator
from gateway.commands.check.mounting import as_list, as_mapping, is_there
from gateway.errors import ConfigError
from gateway.model.frozen import frozen
from gateway.settings.findings import Findings, joined
from gateway.settings.values import safe_quote, safe_text

_MOST_FILES: Final = 50
_DEEPEST: Final = 20
_PIPE: Final = "`docker compose config | gateway check --compose -`"
_REMOTE: Final = ("://", "git@", "oci:")


@frozen
class Source:
    """One compose file.

    `where` names it in messages; relative paths begin at `folder`; `shell` are the variables for
    the texts in it.
    """

    where: str
    folder: Path
    shell: Mapping[str, str]
    document: dict[str, Any]
    path: Path | None = None

    @property
    def services(self) -> dict[str, Any]:
        """The services that it defines itself."""
        return as_mapping(self.document.get("services"))


@frozen
class Layer:
    """What one file says about a service; layers further down the list win."""

    source: Source
    service: Mapping[str, Any]


@frozen
class Project:
    """A service as layers, and all the files in which its secrets and configs may be defined."""

    layers: tuple[Layer, ...]
    sources: tuple[Source, ...]


def with_env_file(folder: Path, shell: Mapping[str, str], findings: Findings) -> Mapping[str, str]:
    """Return the variables of a project in `folder`: those of its `.env`, under the shell's."""
    file = folder / ".env"
    return {**(env_file(file, findings, shell) if is_there(file, S_ISREG) else {}), **shell}


def find_service(first: Source, name: str, findings: Findings) -> Project:
    """Return the service `name` of a project whose main file is `first`.

    Raises ConfigError when there is no such service; other problems are added to `findings`.
    """
    files = _Files(first.folder, findings)
    groups = [[first], *files.included(first, ())]
    holders = [group for group in groups if any(name in source.services for source in group)]
    if not holders:
        names = (
            safe_text(str(one)) for group in groups for source in group for one in source.services
        )
        known = joined(dict.fromkeys(names)) or "none"
        findings.problem(
            first.where, f"has no service {safe_quote(name)}; its services are: {known}"
        )
        raise findings.to_error()
    for group in holders[1:]:
        findings.problem(
            group[0].where,
            f"defines the service {safe_quote(name)}, and so does {holders[0][0].where}; rename "
            "one",
        )
    layers: list[Layer] = []
    for source in holders[0]:
        if name in source.services:
            layers = _stacked(layers, files.layers(source, name, ()))
    return Project(tuple(layers), tuple(source for group in groups for source in group))


def _stacked(below: list[Layer], above: list[Layer]) -> list[Layer]:
    """Return layers over others, without what the upper ones replace or reset."""
    gone = {
        key
        for layer in above
        for key, value in layer.service.items()
        if value is RESET or isinstance(value, OverridingList | OverridingMapping)
    }
    kept = [
        replace(one, service={k: v for k, v in one.service.items() if k not in gone})
        for one in below
    ]
    return kept + above


class _Files:
    """Opens the files that others name, within bounds."""

    def __init__(self, home: Path, findings: Findings) -> None:
        self.home = home.resolve()
        self.findings = findings
        self.left = _MOST_FILES

    def layers(self, source: Source, name: str, trail: tuple[object, ...]) -> list[Layer]:
        """Return what `source` says about a service, over what that extends."""
        written = source.services[name]
        if not isinstance(written, dict):
            if written:
                self.findings.problem(source.where, f"service {safe_text(name)} is not a mapping")
            return [Layer(source, {})]
        own = Layer(source, {key: one for key, one in written.items() if key != "extends"})
        extends = written.get("extends")
        if not extends or extends is RESET:
            return [own]
        step = (source.path, name)
        if step in trail:
            self.findings.problem(
                source.where, f"service {safe_text(name)} extends itself through other services"
            )
            return [own]
        if len(trail) == _DEEPEST:
            self.findings.problem(
                source.where, f"more than {_DEEPEST} services extend each other; make them fewer"
            )
            return [own]
        base = self._base(source, extends)
        if not base:
            return [own]
        return _stacked(self.layers(*base, (*trail, step)), [own])

    def _base(self, source: Source, extends: Any) -> tuple[Source, str] | None:
        """Return the file and the name of the extended service, None if it does not exist."""
        said = Interpolator(source.where, source.shell, self.findings).value(extends, "extends")
        service = str(said.get("service", "")) if isinstance(said, dict) else str(said)
        file = str(said.get("file") or "") if isinstance(said, dict) else ""
        if file:
            opened = self._open(source, file, "extends", None, source.shell)
            if not opened:
                return None
            source = opened
        if service in source.services:
            return source, service
        known = joined(safe_text(str(one)) for one in source.services) or "none"
        self.findings.problem(
            source.where,
            f"has no service {safe_quote(service)}, which another service extends; its services "
            f"are: {known}",
        )
        return None

    def included(self, source: Source, trail: tuple[Path | None, ...]) -> Iterator[list[Source]]:
        """Yield the files that `source` includes, each with those that are merged with it."""
        if source.path in trail:
            self.findings.problem(
                source.where, "includes itself through other files; remove one include"
            )
            return
        reader = Interpolator(source.where, source.shell, self.findings)
        for entry in as_list(reader.value(source.document.get("include"), "include")):
            group = list(self._group(source, entry))
            if group:
                yield group
            for one in group:
                yield from self.included(one, (*trail, source.path))

    def _group(self, source: Source, entry: Any) -> Iterator[Source]:
        """Open the files of one entry of `include`."""
        more = as_mapping(entry)
        paths = [str(path) for path in as_list(more.get("path") if more else entry)]
        if not paths:
            self.findings.problem(source.where, "has an include without a path; write the file's")
            return
        first = source.folder / paths[0]
        folder = source.folder / str(more.get("project_directory") or first.parent)
        shell = source.shell
        if "env_file" in more:
            own: dict[str, str] = {}
            for file in as_list(more["env_file"]):
                own |= env_file(source.folder / str(file), self.findings, source.shell)
            shell = {**own, **shell}
        else:
            shell = with_env_file(folder, shell, self.findings)
        for path in paths:
            opened = self._open(source, path, "include", folder, shell)
            if opened:
                yield opened

    def _open(
        self, source: Source, written: str, key: str, folder: Path | None, shell: Mapping[str, str]
    ) -> Source | None:
        """Return the file that `source` names under `key`, or None after adding a problem."""
        said = f"{key} names {safe_text(written)}"
        if any(mark in written for mark in _REMOTE):
            self.findings.problem(
                source.where,
                f"{said}, which is not a local file; check what Compose makes of it: {_PIPE}",
            )
            return None
        self.left -= 1
        if self.left < 0:
            self.findings.problem(
                source.where, f"{said}, and more than {_MOST_FILES} files are too many to follow"
            )
            raise self.findings.to_error()
        try:
            path = (source.folder / written).absolute()
            is_file = S_ISREG(path.stat().st_mode)
            if not path.resolve().is_relative_to(self.home):
                self.findings.info(
                    source.where, f"{said}, which is outside the project's directory"
                )
            text = read_text(path) if is_file else ""  # a pipe could keep us waiting for ever
            document = parse(text, str(path), self.findings)
        except OSError as err:
            reason = f"cannot be read ({err.strerror}); correct the path, or mount it for check too"
        except ConfigError:
            return None
        except ValueError as err:
            reason = str(err)
        else:
            return Source(str(path), folder or path.parent, shell, document, path)
        self.findings.problem(source.where, f"{said}, which {reason}")
        return None
