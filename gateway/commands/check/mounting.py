"""Reads what a compose service mounts: files, folders, secrets and configs."""

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gateway.model import Secret
from gateway.model.frozen import frozen
from gateway.providers.kept import PLACES as LISTS
from gateway.settings.findings import Findings
from gateway.settings.places import PLACES
from gateway.settings.sources import SECRETFILE, SECRETS_FOLDER
from gateway.settings.values import safe_name, safe_quote, safe_text, unquoted

UNKNOWN_KEYS: Final = {
    "WIREGUARD_PRIVATE_KEY": "/" * 42 + "8=",
    "WIREGUARD_PRESHARED_KEY": "+" * 42 + "8=",
}
"""Secret variables with any value that can be read, for keys that the engine or a cluster has."""

_ANY_SECRET: Final = str(SECRETS_FOLDER / "*")


@frozen
class Mount:
    """A file or folder of the host, or the text that Compose makes a file of.

    `written` is how the compose file `where` names it; a secret or config is `granted`.
    """

    source: Path | Secret
    written: str
    where: str
    granted: bool = False


Granted = Mapping[str, tuple[Any, "Mounting"]]
"""Secrets or configs by name, each with the reader of the file that defines it."""

Mounts = Mapping[PurePosixPath, Mount]
"""Mounts by their path in the container."""


def is_there(path: Path, kind: Callable[[int], bool] = bool) -> bool:
    """Whether something of a kind is at `path`; True if that cannot be determined."""
    try:
        return kind(path.stat().st_mode)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


@frozen
class Mounting:
    """Reads what one compose file mounts into a service.

    `where` names the file in messages; its relative paths begin at `folder`; `shell` are the
    variables that it may take secrets from.
    """

    where: str
    folder: Path
    shell: Mapping[str, str]
    findings: Findings

    def mounts(self, service: Mapping[str, Any], tops: Mapping[str, Granted]) -> Mounts:
        """Return what a service mounts; `tops` are the project's secrets and configs."""
        found: dict[PurePosixPath, Mount] = {}
        for entry in as_list(service.get("volumes")):
            found |= dict(self._volume(entry))
        for kind, folder in (("configs", PurePosixPath("/")), ("secrets", SECRETS_FOLDER)):
            for entry in as_list(service.get(kind)):
                found |= dict(self._granted(entry, tops[kind], folder))
        # A target with .. could end up outside the temporary folder.
        return {target: mount for target, mount in found.items() if ".." not in target.parts}

    def _volume(self, entry: Any) -> Iterator[tuple[PurePosixPath, Mount]]:
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
            yield PurePosixPath(target), Mount(self.host_path(source), source, self.where)
        elif target not in LISTS and any(
            _concerns(PurePosixPath(target), PurePosixPath(place)) for place in PLACES
        ):
            self.findings.warn(
                self.where,
                f"the volume {safe_quote(source)} at {safe_text(target)} cannot be checked",
            )

    def _granted(
        self, entry: Any, known: Granted, folder: PurePosixPath
    ) -> Iterator[tuple[PurePosixPath, Mount]]:
        """Yield where a secret or config is mounted; report those that are not local files."""
        name = str(entry.get("source", "")) if isinstance(entry, dict) else str(entry)
        target = str(entry.get("target") or name) if isinstance(entry, dict) else name
        place = folder / target
        definition, defined_by = known.get(name, (None, self))
        match as_mapping(definition):
            case {"file": str(source)} if source:
                yield place, Mount(defined_by.host_path(source), source, self.where, granted=True)
            case {"content": str(text)}:
                yield place, Mount(Secret(text), name, self.where, granted=True)
            case {"environment": str(variable)} if variable in defined_by.shell:
                yield (
                    place,
                    Mount(Secret(defined_by.shell[variable]), name, self.where, granted=True),
                )
            case {"environment": str(variable)}:
                self.findings.problem(
                    self.where,
                    f"takes {safe_quote(name)} from {safe_name(variable)}, which is not set; set "
                    "it",
                )
            case _:
                self.findings.warn(
                    self.where,
                    f"{safe_quote(name)} at {safe_text(str(place))} is not a local file and is "
                    "not checked",
                )
                stand_in = UNKNOWN_KEYS.get(target.upper())
                if stand_in is not None and as_mapping(definition).get("external"):
                    yield place, Mount(Secret(stand_in), name, self.where, granted=True)

    def host_path(self, text: str) -> Path:
        """Return the path that Compose means: relative to the compose file, or at home."""
        home = text == "~" or text.startswith("~/")
        return (self.folder / (Path(text).expanduser() if home else text)).absolute()


def report_missing_files(mounts: Mounts, variables: Mapping[str, str], findings: Findings) -> None:
    """Refuse missing files that matter to the configuration; report missing folders."""
    files = [unquoted(text) for name, text in variables.items() if name.endswith(SECRETFILE)]
    zips = (place.removesuffix("conf") + "zip" for place in PLACES if "*" in place)
    places = (*PLACES, *zips, _ANY_SECRET, *files)
    for target, mount in mounts.items():
        if isinstance(mount.source, Secret) or is_there(mount.source):
            continue
        said = (
            f"mounts {safe_text(mount.written)} at {safe_text(str(target))}, but it does not "
            "exist; "
        )
        if mount.granted or any(fnmatchcase(str(target), place) for place in places):
            findings.problem(mount.where, f"{said}correct the path, or run check where the file is")
        elif any(_concerns(target, PurePosixPath(place)) for place in places):
            findings.warn(
                mount.where,
                f"{said}its contents are not checked, and Docker would create an empty directory",
            )


def _concerns(target: PurePosixPath, place: PurePosixPath) -> bool:
    """Whether a mount at `target` affects what is at `place`, which may end in a pattern."""
    folder = place.parent if "*" in place.name else place
    return target == folder or target in folder.parents or folder in target.parents


def as_mapping(value: Any) -> dict[str, Any]:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a value that may be written alone or as a list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]
