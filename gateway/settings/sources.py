"""Reads the variables from all their sources.

From strong to weak: the file that `<VARIABLE>_SECRETFILE` names, `/run/secrets/<variable>` in lower
case, the variable; in each, a current name wins over an older one. An empty value counts as none.
When two sources disagree, a notice says which one is used. `picking` chooses between variables
and wg-quick files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

from pydantic_settings import EnvSettingsSource

from gateway.model import Secret
from gateway.model.frozen import frozen
from gateway.settings import addresses, files, values
from gateway.settings.findings import Findings
from gateway.settings.schema import (
    FIELDS,
    OLDER_NAMES,
    PLAIN_ONLY,
    SECRETS,
    WHOLE,
    Settings,
    names_of,
)
from gateway.settings.sourced import Kind, Origin, Refused, Sourced
from gateway.settings.values import safe_quote

SECRETFILE: Final = "_SECRETFILE"
SECRETS_FOLDER: Final = PurePosixPath("/run/secrets")

FILE_VARIABLES: Final[Mapping[str, str]] = {
    name: field for field in FIELDS if field not in PLAIN_ONLY for name in names_of(field)
}
"""Variables that may come as a file too, with their fields."""

_SUBNETS: Final = ("wireguard_allowed_ips", "firewall_outbound_subnets")

Text = Sourced[Secret]
"""A text as it was given: a secret whatever the variable, because people paste keys anywhere."""

Rank = Mapping[str, Text]
"""The texts of the sources that are equally strong, by the name of the variable."""


@frozen
class Variables:
    """All variables, and those that could not be read by the name of their field."""

    values: Settings
    refused: Mapping[str, Refused]

    @property
    def unreadable(self) -> frozenset[str]:
        """The names of the fields that could not be read."""
        return frozenset(self.refused)


def read_variables(environ: Mapping[str, str], root: Path, findings: Findings) -> Variables:
    """Read every variable from all its sources; those that cannot be read are left out.

    `overruled.settle` reports them, once it is known what the files have.
    """
    ranks: tuple[Rank, ...] = (
        dict(_named_files(environ, root, findings)),
        dict(_conventional_files(root, findings)),
        dict(_plain(environ, findings)),
    )
    given = _winners(ranks, findings)
    sources: dict[str, Any] = {"_build_sources": (tuple(map(_source, ranks)), {})}
    read = Settings(**sources)
    refused = {name: value for name, value in read if isinstance(value, Refused)}
    for field in _SUBNETS:
        if field in given and field not in refused:
            text, origin = given[field].value.reveal(), given[field].origin
            addresses.report_host_bits(text, origin.where, findings)
    _warn_of_plain_key(read, findings)
    return Variables(read.model_copy(update=dict.fromkeys(refused)), refused)


def is_unread(field: str, findings: Findings) -> bool:
    """Return whether a file with the value of `field` has been reported, so it is not missing."""
    names = [name for name, its in FILE_VARIABLES.items() if its == field]
    files = {str(SECRETS_FOLDER / name.lower()) for name in names}
    wanted = {*(name + SECRETFILE for name in names), *files}
    return any(problem.where in wanted for problem in findings.problems)


def _source(rank: Rank) -> EnvSettingsSource:
    """Return a rank as a source of pydantic-settings, which finds the names and their aliases.

    Files are read here too: the library's own source for secrets raises at the first one that is a
    directory or not text, and knows neither a limit of size nor who else can read a file.
    """
    source = EnvSettingsSource(Settings)
    # The library looks only at the names, and passes the texts on with their origins.
    source.env_vars = cast("Mapping[str, str | None]", rank)
    return source


def _winners(ranks: tuple[Rank, ...], findings: Findings) -> dict[str, Text]:
    """Return the winning text of each field; report texts that differ from it."""
    found: dict[str, Text] = {}
    for field in FIELDS:
        texts = [rank[name] for rank in ranks for name in names_of(field) if name in rank]
        for text in texts:
            winner = found.setdefault(field, text)
            if winner.value != text.value:
                findings.warn(
                    field.upper(),
                    f"taken from {winner.origin.text}; {text.origin.text} has a different value "
                    "and is not used: remove one of them",
                )
    return found


def _named_files(
    environ: Mapping[str, str], root: Path, findings: Findings
) -> Iterator[tuple[str, Text]]:
    for name in FILE_VARIABLES:
        variable = name + SECRETFILE
        written = values.unquoted(environ.get(variable, "").strip())
        if not written:
            continue
        path = PurePosixPath(written)
        if not path.is_absolute():
            findings.problem(
                variable,
                f"must be an absolute path, got {safe_quote(written)}; write that of the file "
                f"which has the value, such as {SECRETS_FOLDER / name.lower()}",
            )
        elif path != SECRETS_FOLDER / name.lower():
            yield from _from_file(root, path, name, variable, findings)


def _conventional_files(root: Path, findings: Findings) -> Iterator[tuple[str, Text]]:
    if not files.exists(root, SECRETS_FOLDER):
        return
    for name in FILE_VARIABLES:
        path = SECRETS_FOLDER / name.lower()
        if files.exists(root, path):
            yield from _from_file(root, path, name, str(path), findings)


def _from_file(
    root: Path, path: PurePosixPath, name: str, where: str, findings: Findings
) -> Iterator[tuple[str, Text]]:
    field = FILE_VARIABLES[name]
    text = files.read(root, path, where, findings, secret=field in SECRETS)
    if text is None:
        return
    # A file may hold a list with one entry per line.
    lines = filter(None, map(str.strip, text.splitlines()))
    clean = text.strip() if field in WHOLE else ",".join(lines)
    clean = _unquoted(clean, where, field, findings)
    if "\0" in clean:  # no call of the kernel takes it in a path or an argument
        findings.problem(where, f"{safe_quote(str(path))} has a NUL byte; save it as plain text")
    elif clean:
        yield name, Sourced(Secret(clean), Origin(str(path), where, Kind.SECRET_FILE))
    else:
        findings.warn(where, f"{safe_quote(str(path))} is empty and is ignored")


def _plain(environ: Mapping[str, str], findings: Findings) -> Iterator[tuple[str, Text]]:
    for field in FIELDS:
        for name in names_of(field):
            text = _unquoted(environ.get(name, "").strip(), name, field, findings)
            if text and name in OLDER_NAMES:
                findings.info(name, f"is the older name of {OLDER_NAMES[name]}; both work")
            if text:
                older = f", as {name}" if name in OLDER_NAMES else ""
                origin = Origin(f"environment{older}", name, Kind.VARIABLE)
                yield name, Sourced(Secret(text), origin)


def _unquoted(text: str, where: str, field: str, findings: Findings) -> str:
    """Strip and report quotes around a whole value; a command keeps its quotes."""
    bare = text if field in WHOLE else values.unquoted(text)
    if bare != text:
        findings.info(where, "the quotes around the value are ignored")
    return bare


def _warn_of_plain_key(read: Settings, findings: Findings) -> None:
    key: Sourced[Secret] | Refused | None = read.wireguard_private_key
    if key and key.origin.kind is Kind.VARIABLE:
        findings.warn(
            key.origin.where,
            "the private key is in the environment, where anyone who can inspect the "
            f"container can read it; put it in a file mounted at {SECRETS_FOLDER}/"
            "wireguard_private_key and remove the variable",
        )
