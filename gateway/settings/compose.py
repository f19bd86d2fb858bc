"""Reading one service of a compose file: its variables, the files it mounts, what it publishes.

Only `gateway check` uses this. `extends`, `include` and several files at once are for Compose to
merge; `docker compose config` writes the result, which can be checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.settings.envfile import env_file
from gateway.settings.findings import Findings, joined
from gateway.settings.interpolate import interpolated
from gateway.settings.quickfiles import PLACES
from gateway.settings.sources import SECRETFILE, SECRETS_FOLDER
from gateway.settings.values import shown

_MERGE_FIRST: Final = (
    "which check does not follow; run `docker compose config --no-interpolate` and check its output"
)

Mounts = Mapping[PurePosixPath, Path]
"""Files and folders of the host by their place in the container."""


@dataclass(frozen=True)
class Service:
    """What a compose file says of a service; `ports` are the entries as they are written."""

    variables: Mapping[str, str]
    mounts: Mounts
    capabilities: tuple[str, ...]
    ports: tuple[Any, ...]


def read_service(file: Path, name: str, shell: Mapping[str, str], findings: Findings) -> Service:
    """Read the service `name`; variables in it are the shell's, else those of `.env` beside it.

    Raises ConfigError when there is no such service; other problems are added to `findings`.
    """
    beside = file.parent / ".env"
    values = {**(env_file(beside, findings) if beside.is_file() else {}), **shell}
    document = _document(file, findings)
    reader = _Reader(file, values, findings)
    found = reader.plain(_service(document, name, file, findings), f"service {name}")
    variables = reader.environment(found)
    mounts = reader.mounts(found, reader.plain_tops(document))
    reader.tell_missing(mounts, variables)
    return Service(
        variables,
        mounts,
        tuple(str(one).upper() for one in _listed(found.get("cap_add"))),
        tuple(_listed(found.get("ports"))),
    )


def _document(file: Path, findings: Findings) -> dict[str, Any]:
    """Return a compose file's content with every scalar as the text it is written in."""
    import yaml  # noqa: PLC0415 - only this command needs it, and every start would pay for it

    class AsWritten(yaml.SafeLoader):
        """Knows merge keys and null only: `off` stays `off`, `0x10` stays `0x10`."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - how the library declares it
            first: [entry for entry in known if entry[0].endswith((":merge", ":null"))]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        # AsWritten is a SafeLoader: it makes texts, lists and mappings, nothing else.
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=AsWritten)  # noqa: S506
    except OSError as err:
        findings.wrong(str(file), f"cannot be read ({err.strerror}); name a compose file")
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 0
        findings.wrong(f"{file} line {line}", "is no YAML; `docker compose config` says more")
    except (yaml.YAMLError, ValueError, RecursionError):
        findings.wrong(str(file), "is no YAML; `docker compose config` says more")
    else:
        if isinstance(content, dict):
            return content
        findings.wrong(str(file), "is no compose file: it has no services")
    raise ConfigError(tuple(findings.problems))


def _service(document: dict[str, Any], name: str, file: Path, findings: Findings) -> dict[str, Any]:
    services = document.get("services")
    services = services if isinstance(services, dict) else {}
    found = services.get(name)
    if not isinstance(found, dict):
        known = joined(str(one) for one in services) or "none"
        findings.wrong(str(file), f"has no service {shown(name)}; its services are: {known}")
        raise ConfigError(tuple(findings.problems))
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

    def plain(self, value: Any, where: str) -> Any:
        """Return `value` with all variables in its texts replaced."""
        match value:
            case str():
                try:
                    return interpolated(value, self.shell)
                except ValueError as err:
                    self.findings.wrong(f"{self.file} {where}", str(err))
                    return ""
            case dict():
                return {str(key): self.plain(one, f"{where} {key}") for key, one in value.items()}
            case list():
                return [self.plain(one, where) for one in value]
            case _:
                return value

    def plain_tops(self, document: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the top-level secrets and configs."""
        return {
            kind: _mapping(self.plain(_mapping(document.get(kind)), kind))
            for kind in ("secrets", "configs")
        }

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        """Return the variables of a service: those of its env files under its own."""
        environ: dict[str, str] = {}
        for entry in _listed(service.get("env_file")):
            path = entry.get("path", "") if isinstance(entry, dict) else entry
            required = not isinstance(entry, dict) or entry.get("required") != "false"
            place = self._host_path(str(path))
            if required or place.exists():
                environ |= env_file(place, self.findings, self.shell)
        own = service.get("environment")
        pairs = own.items() if isinstance(own, dict) else (_pair(str(one)) for one in _listed(own))
        for name, value in pairs:
            if value is not None:
                environ[str(name)] = str(value)
            elif name in self.shell:
                environ[str(name)] = self.shell[name]
        return environ

    def mounts(self, service: dict[str, Any], top: dict[str, dict[str, Any]]) -> Mounts:
        """Return the files and folders that a service mounts, by their place in the container."""
        found: dict[PurePosixPath, Path] = {}
        for entry in _listed(service.get("volumes")):
            found |= dict(self._volume(entry))
        for kind, folder in (("configs", PurePosixPath("/")), ("secrets", SECRETS_FOLDER)):
            for entry in _listed(service.get(kind)):
                found |= dict(self._granted(entry, top[kind], folder))
        # A target that climbs would be laid out outside the folder made for it.
        return {target: source for target, source in found.items() if ".." not in target.parts}

    def _volume(self, entry: Any) -> Iterator[tuple[PurePosixPath, Path]]:
        if isinstance(entry, dict):
            source, target = str(entry.get("source", "")), str(entry.get("target", ""))
            bind = entry.get("type") == "bind"
        else:
            source, _, rest = str(entry).partition(":")
            target = rest.partition(":")[0]
            bind = source.startswith((".", "/", "~"))
        if not target.startswith("/"):
            return
        if bind:
            yield PurePosixPath(target), self._host_path(source)
        elif any(_concerns(PurePosixPath(target), PurePosixPath(place)) for place in PLACES):
            self.findings.warn(
                str(self.file), f"the volume {shown(source)} at {target} cannot be looked into"
            )

    def _granted(
        self, entry: Any, known: dict[str, Any], folder: PurePosixPath
    ) -> Iterator[tuple[PurePosixPath, Path]]:
        """Yield where a secret or config is mounted; those that are not files are told."""
        name = str(entry.get("source", "")) if isinstance(entry, dict) else str(entry)
        target = str(entry.get("target") or name) if isinstance(entry, dict) else name
        place = folder / target
        source = _mapping(known.get(name)).get("file")
        if source:
            yield place, self._host_path(str(source))
        else:
            self.findings.warn(
                str(self.file), f"{shown(name)} at {place} is no file here and is not checked"
            )

    def _host_path(self, text: str) -> Path:
        home = text == "~" or text.startswith("~/")
        return (self.file.parent / (Path(text).expanduser() if home else text)).absolute()

    def tell_missing(self, mounts: Mounts, variables: Mapping[str, str]) -> None:
        """Tell mounted files that the configuration would be read from, and that are not there."""
        named = [text for name, text in variables.items() if name.endswith(SECRETFILE) and text]
        places = [PurePosixPath(place) for place in (*PLACES, str(SECRETS_FOLDER / "*"), *named)]
        for target, source in mounts.items():
            if any(_concerns(target, place) for place in places) and not source.exists():
                self.findings.wrong(
                    str(self.file),
                    f"mounts {shown(str(source))} at {target}, and it is not there; correct the "
                    "path, or check where the file is",
                )


def _concerns(target: PurePosixPath, place: PurePosixPath) -> bool:
    """Say whether a mount at `target` decides what is at `place`, which may end in a pattern."""
    folder = place.parent if "*" in place.name else place
    return target == folder or target in folder.parents or folder in target.parents


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name.strip(), value if equals else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> Sequence[Any]:
    """Return a value that may be written alone or as a list."""
    if value is None or value == "":
        return ()
    return value if isinstance(value, list) else (value,)
