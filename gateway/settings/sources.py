"""Where the values of variables come from, and which source wins.

From strong to weak: the file that `<VARIABLE>_SECRETFILE` names, `/run/secrets/<variable>` in lower
case, the variable, its older name. An empty value counts as none. Each rank is one source of
pydantic-settings; where two disagree, a notice says which one won. How variables and a wg-quick
file go together is decided in `tunnels`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from gateway.model import Secret
from gateway.settings import files, values
from gateway.settings.compat import OLDER_NAMES
from gateway.settings.findings import Findings
from gateway.settings.schema import COMMANDS, FIELDS, SECRETS, Settings
from gateway.settings.values import shown

SECRETFILE: Final = "_SECRETFILE"
SECRETS_FOLDER: Final = PurePosixPath("/run/secrets")
ENVIRONMENT: Final = "environment"
PLAIN_ONLY: Final = frozenset(
    {"wireguard_conf_secretfile", "health_server_address", "log_level", "log_format", "tz"}
)
"""Fields that are read as variables only: others read them too, or before any file."""

FILE_VARIABLES: Final[Mapping[str, str]] = {
    **{field.upper(): field for field in FIELDS if field not in PLAIN_ONLY},
    **{name: current.lower() for name, current in OLDER_NAMES.items()},
}
"""Variables that may come as a file too, with their fields; older names last."""


@dataclass(frozen=True)
class Given:
    """The raw text of a variable; `origin` says where it came from, `where` names it in errors.

    The text is kept as a secret whatever the variable, because people paste keys anywhere.
    """

    text: Secret
    origin: str
    where: str
    in_file: bool = False


class Layer(PydanticBaseSettingsSource):
    """All values of one rank, as a source of pydantic-settings."""

    def __init__(self, name: str, given: Mapping[str, Given]) -> None:
        super().__init__(Settings)
        self.__name__ = name  # how pydantic-settings calls the source
        self.given = given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the raw text of a field, or None."""
        del field
        given = self.given.get(field_name)
        return given and given.text, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the raw texts of all fields that this rank has."""
        return {name: given.text for name, given in self.given.items()}


@dataclass(frozen=True)
class Variables:
    """All variables, read: their values, where each came from, and which could not be read."""

    values: Settings
    given: Mapping[str, Given]
    unreadable: frozenset[str] = frozenset()

    def origin(self, field: str) -> str:
        """Say where the value of `field` came from."""
        return self.given[field].origin if field in self.given else "default"

    def where(self, field: str) -> str:
        """Return the name under which the user wrote `field`."""
        return self.given[field].where if field in self.given else field.upper()


def read_variables(environ: Mapping[str, str], root: Path, findings: Findings) -> Variables:
    """Read every variable from all its sources; what cannot be read is left out and told."""
    ranks = {
        "named files": _gather(_named_files(environ, root, findings)),
        "files in /run/secrets": _gather(_conventional_files(root, findings)),
        "variables": _gather(_plain(environ, findings)),
        "older names": _gather(_older(environ, findings)),
    }
    given: dict[str, Given] = {}
    for rank in ranks.values():
        for field, candidate in rank.items():
            winner = given.setdefault(field, candidate)
            if winner.text != candidate.text:
                findings.warn(
                    field.upper(),
                    f"taken from {winner.origin}; {candidate.origin} says something else and is "
                    "not used: remove one of them",
                )
    _warn_of_plain_key(given, findings)
    layers = [Layer(name, rank) for name, rank in ranks.items()]
    settings, unreadable = _settings(layers, given, findings)
    return Variables(settings, given, unreadable)


def _settings(
    layers: Iterable[Layer], given: Mapping[str, Given], findings: Findings
) -> tuple[Settings, frozenset[str]]:
    """Let pydantic-settings merge and read the layers; wrong fields become problems."""
    try:
        return _build(layers), frozenset()
    except ValidationError as err:
        faults = err.errors(include_url=False, include_input=False)
    wrong: set[str] = set()
    for fault in faults:
        field = str(fault["loc"][0])
        wrong.add(field)
        message = str(fault.get("ctx", {}).get("error", "cannot be read"))
        findings.wrong(given[field].where, message)
    readable = [
        Layer(
            layer.__name__,
            {name: one for name, one in layer.given.items() if name not in wrong},
        )
        for layer in layers
    ]
    return _build(readable), frozenset(wrong)


def _build(layers: Iterable[Layer]) -> Settings:
    keywords: dict[str, Any] = {"layers": tuple(layers)}
    return Settings(**keywords)


def _gather(found: Iterator[tuple[str, Given]]) -> dict[str, Given]:
    """Keep the first text of each field."""
    result: dict[str, Given] = {}
    for field, given in found:
        if given.text.reveal():
            result.setdefault(field, given)
    return result


def _named_files(
    environ: Mapping[str, str], root: Path, findings: Findings
) -> Iterator[tuple[str, Given]]:
    for name, field in FILE_VARIABLES.items():
        variable = name + SECRETFILE
        written = values.unquoted(environ.get(variable, "").strip())
        if not written:
            continue
        path = PurePosixPath(written)
        if not path.is_absolute():
            findings.wrong(variable, f"must be an absolute path, got {shown(written)}")
        elif path != SECRETS_FOLDER / name.lower():
            yield from _from_file(root, path, field, variable, findings)


def _conventional_files(root: Path, findings: Findings) -> Iterator[tuple[str, Given]]:
    if not files.exists(root, SECRETS_FOLDER):
        return
    for name, field in FILE_VARIABLES.items():
        path = SECRETS_FOLDER / name.lower()
        if files.exists(root, path):
            yield from _from_file(root, path, field, str(path), findings)


def _from_file(
    root: Path, path: PurePosixPath, field: str, where: str, findings: Findings
) -> Iterator[tuple[str, Given]]:
    text = files.read(root, path, where, findings, secret=field in SECRETS)
    if text is not None:
        # A list may stand in a file with one entry a line.
        lines = filter(None, map(str.strip, text.splitlines()))
        clean = text.strip() if field in COMMANDS else ",".join(lines)
        clean = _unquoted(clean, where, field, findings)
        if not clean:
            findings.warn(where, f"{shown(str(path))} is empty and counts as not there")
        yield field, Given(Secret(clean), str(path), where, in_file=True)


def _plain(environ: Mapping[str, str], findings: Findings) -> Iterator[tuple[str, Given]]:
    for field in FIELDS:
        name = field.upper()
        if name in environ:
            text = _unquoted(environ[name].strip(), name, field, findings)
            yield field, Given(Secret(text), ENVIRONMENT, name)


def _older(environ: Mapping[str, str], findings: Findings) -> Iterator[tuple[str, Given]]:
    for name, current in OLDER_NAMES.items():
        if environ.get(name, "").strip():
            text = _unquoted(environ[name].strip(), name, current.lower(), findings)
            findings.tell(name, f"is the older name of {current}; both work")
            yield current.lower(), Given(Secret(text), f"{ENVIRONMENT}, as {name}", name)


def _unquoted(text: str, where: str, field: str, findings: Findings) -> str:
    """Strip the quotes around a whole value, and tell it; those of a command are its own."""
    bare = text if field in COMMANDS else values.unquoted(text)
    if bare != text:
        findings.tell(where, "the quotes around the value do not count")
    return bare


def _warn_of_plain_key(given: Mapping[str, Given], findings: Findings) -> None:
    key = given.get("wireguard_private_key")
    if key and not key.in_file:
        findings.warn(
            key.where,
            "the private key stands in the environment, where everybody who can inspect the "
            f"container reads it; put it into a file mounted at {SECRETS_FOLDER}/"
            "wireguard_private_key and remove the variable",
        )
