"""Reading one service of a compose file: its variables, the files it mounts, what it publishes.

Only `gateway check` uses this. `extends`, `include` and several files at once are for Compose to
merge; `docker compose config` writes the result, which can be checked.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

from gateway.commands.check.document import read_document
from gateway.commands.check.envfile import env_file
from gateway.commands.check.interpolate import interpolated
from gateway.commands.check.mounting import Mounting, Mounts, is_there, listed, mapping
from gateway.settings.findings import Findings, joined
from gateway.settings.values import named, plain, shown

_MERGE_FIRST: Final = (
    "which check does not follow; run `docker compose config --no-interpolate` and check its output"
)
_READ: Final = (
    *("environment", "env_file", "volumes", "secrets", "configs"),
    *("cap_add", "ports", "privileged"),
)
"""The keys of a service that say something about the gateway."""

_DEEPEST: Final = 20
_MOST: Final = 10_000
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Service:
    """What a compose file says of a service; `ports` are the entries as they are written."""

    variables: Mapping[str, str]
    mounts: Mounts
    capabilities: frozenset[str]
    ports: tuple[Any, ...]
    privileged: bool = False


def read_service(file: Path, name: str, shell: Mapping[str, str], findings: Findings) -> Service:
    """Read the service `name`; variables in it are the shell's, else those of `.env` beside it.

    Raises ConfigError when there is no such service; other problems are added to `findings`.
    """
    beside = file.parent / ".env"
    values = {**(env_file(beside, findings, shell) if is_there(beside, S_ISREG) else {}), **shell}
    document = read_document(file, findings)
    reader = _Reader(file, values, findings)
    written = _service(document, name, file, findings)
    found: dict[str, Any] = {
        key: reader.plain(written[key], f"service {plain(name)} {key}")
        for key in _READ
        if key in written
    }
    tops = {
        kind: mapping(reader.plain(mapping(document.get(kind)), kind))
        for kind in ("secrets", "configs")
    }
    variables = reader.environment(found)
    mounts = reader.mounting.mounts(found, tops)
    reader.mounting.tell_missing(mounts, variables)
    return Service(
        variables,
        mounts,
        frozenset(str(one).upper().removeprefix("CAP_") for one in listed(found.get("cap_add"))),
        tuple(listed(found.get("ports"))),
        str(found.get("privileged", "")).lower() == "true",
    )


def _service(document: dict[str, Any], name: str, file: Path, findings: Findings) -> dict[str, Any]:
    services = mapping(document.get("services"))
    found = services.get(name, ()) or ({} if name in services else None)
    if not isinstance(found, dict):
        known = joined(plain(str(one)) for one in services) or "none"
        findings.wrong(str(file), f"has no service {shown(name)}; its services are: {known}")
        raise findings.error()
    for key, holder in (("extends", found), ("include", document)):
        if key in holder:
            findings.wrong(str(file), f"uses {key}, {_MERGE_FIRST}")
    return found


class _Reader:
    """Reads one service of one compose file."""

    def __init__(self, file: Path, shell: Mapping[str, str], findings: Findings) -> None:
        self.file = file
        self.shell = shell
        self.findings = findings
        self.mounting = Mounting(file, shell, findings)
        self.left = _MOST

    def plain(self, value: Any, where: str, depth: int = 0) -> Any:
        """Return `value` with all variables in its texts replaced.

        Raises ConfigError where it holds itself, or more than anybody writes.
        """
        self.left -= 1
        if depth > _DEEPEST or self.left < 0:
            told = f"{where} holds itself, or far more than a service needs; write it plainly"
            self.findings.wrong(str(self.file), told)
            raise self.findings.error()
        match value:
            case str():
                try:
                    return interpolated(value, self.shell)
                except ValueError as err:
                    self.findings.wrong(f"{self.file} {where}", str(err))
                    return ""
            case dict():
                return {
                    str(key): self.plain(one, f"{where} {named(str(key))}", depth + 1)
                    for key, one in value.items()
                }
            case list():
                return [self.plain(one, where, depth + 1) for one in value]
            case _:
                return value

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        """Return the variables of a service: those of its env files under its own."""
        environ: dict[str, str] = {}
        for entry in listed(service.get("env_file")):
            path = str(entry.get("path", "") if isinstance(entry, dict) else entry)
            required = not isinstance(entry, dict) or entry.get("required") != "false"
            place = self.mounting.host_path(path)
            if required or is_there(place):
                said = str(place) if plain(path) == path else f"{self.file} env_file {plain(path)}"
                environ |= env_file(place, self.findings, self.shell, where=said)
        own = service.get("environment")
        pairs = own.items() if isinstance(own, dict) else self._pairs(listed(own))
        for name, value in pairs:
            if isinstance(value, dict | list):
                self._wrong_variable(f"gives {named(name)} more than a text")
            elif value is not None:
                environ[name] = str(value)
            elif name in self.shell:
                environ[name] = self.shell[name]
        return environ

    def _pairs(self, entries: list[Any]) -> Iterator[tuple[str, str | None]]:
        """Yield the names and values of a list; None where the shell has the value."""
        told: set[str] = set()
        for entry in entries:
            name, equals, value = str(entry).partition("=")
            name = name.strip()
            if isinstance(entry, dict | list):
                names = joined(named(str(key)) for key in entry) if isinstance(entry, dict) else ""
                self._wrong_variable(f"has an entry that is no text: {names or 'a list'}")
            elif not _NAME.fullmatch(name):
                self._wrong_variable("has an entry whose name is none")
            else:
                if name in told:
                    self.findings.warn(
                        str(self.file), f"environment has {named(name)} twice; the last one counts"
                    )
                told.add(name)
                yield name, value if equals else None

    def _wrong_variable(self, what: str) -> None:
        self.findings.wrong(str(self.file), f"environment {what}; write NAME=value")
