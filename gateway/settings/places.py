"""Finds wg-quick files.

The first of `PLACES` that has a file is used; other places with files are reported. A folder may
hold several files, or one zip file with them: candidates in the order of their names, `wg0.conf`
first.
"""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from gateway.errors import is_shortage
from gateway.model.frozen import frozen
from gateway.settings import files, wgquick
from gateway.settings.findings import Findings
from gateway.settings.values import safe_text

if TYPE_CHECKING:
    from gateway.settings.archive import Member

PLACES: Final = (
    "/run/secrets/wg0.conf",
    "/run/secrets/wireguard_conf",
    "/config/*.conf",
    "/config/wg_confs/*.conf",
    "/config/wireguard/*.conf",
    "/gluetun/wireguard/*.conf",
    "/etc/wireguard/*.conf",
)
"""Where wg-quick files are searched when no variable names one, the strongest first."""

MOST_FILES: Final = 4096
_MOST_ENTRIES: Final = 20_000
"""Entries of a folder after which the rest is not looked at."""

_LONGEST_NAME: Final = 100
"""How much of the name of a member is shown."""

_BEGINNING: Final = 8192
"""The bytes of a file in which comments are looked for."""


@frozen
class ConfFile:
    """A wg-quick file: its path, as messages show it, and the name that filters look at.

    `member` reads it where it is in a zip file, else it is at its path.
    """

    path: PurePosixPath
    name: str
    member: "Member | None" = None

    def text(self, root: Path, where: str, findings: Findings) -> str | None:
        """Return what is in the file, or None and a problem at `where`."""
        if not self.member:
            return files.read(root, self.path, where, findings, secret=True)
        try:
            return wgquick.decode(self.member.whole(files.LARGEST))
        except ValueError as err:
            findings.problem(where, str(err))
            return None

    def beginning(self, root: Path) -> str:
        """Return the first lines of the file, nothing if it cannot be read."""
        try:
            if self.member:
                raw = self.member.read(_BEGINNING)
            else:
                raw = files.contents(files.inside(root, self.path), files.LARGEST)[0][:_BEGINNING]
            return wgquick.decode(raw)
        except OSError as err:
            if is_shortage(err):
                raise
        except ValueError:
            pass
        return ""


def find(root: Path, named: PurePosixPath | None, findings: Findings) -> tuple[ConfFile, ...]:
    """Return the wg-quick files to use: the `named` one, else those of the first place."""
    used: Sequence[ConfFile] = ()
    default = PurePosixPath(PLACES[0])
    if named and (named != default or files.exists(root, named)):
        used = _named(root, named, findings)
        if not used:
            return ()
    for place in map(PurePosixPath, PLACES):
        found = _at(root, place, findings, zips=not used)
        if not used:
            used = found
        elif found and named not in [one.path for one in found]:
            findings.warn(
                str(found[0].path),
                f"is not used, because {used[0].path} exists; remove one of them",
            )
    return tuple(used)


def _named(root: Path, named: PurePosixPath, findings: Findings) -> Sequence[ConfFile]:
    """Return the file that a variable names, or what is in it if it is a zip file."""
    if named.suffix.lower() == ".zip":
        of_zip = Findings()
        found = _unzipped(root, named, of_zip)
        for notice in of_zip.notices:
            (findings.warn if found else findings.problem)(notice.where, notice.message)
        return found
    return (ConfFile(named, named.name),)


def _at(root: Path, place: PurePosixPath, findings: Findings, *, zips: bool) -> Sequence[ConfFile]:
    """Return the files of a place; with `zips` and without any, those of its only zip file."""
    if "*" not in place.name:
        return (ConfFile(place, place.name),) if files.exists(root, place) else ()
    folder = place.parent
    names = _names_in(root, folder, findings)
    found = [name for name in names if name.lower().endswith(".conf")]
    if len(found) > MOST_FILES:
        findings.problem(
            str(folder),
            f"has {len(found)} WireGuard files, and at most {MOST_FILES} are read; leave those "
            "that you use",
        )
        found = found[:MOST_FILES]
    if found:
        found.sort(key=lambda name: (name != "wg0.conf", name))
        return [ConfFile(folder / name, name) for name in found]
    archives = [name for name in names if name.lower().endswith(".zip")] if zips else []
    if len(archives) > 1:
        findings.warn(
            str(folder), f"has {len(archives)} zip files, so none of them is used; leave one"
        )
        return ()
    return _unzipped(root, folder / archives[0], findings) if archives else ()


def _names_in(root: Path, folder: PurePosixPath, findings: Findings) -> list[str]:
    """Return the names of a folder's entries, without hidden ones."""
    try:
        with os.scandir(files.inside(root, folder)) as entries:
            names = [entry.name for entry in islice(entries, _MOST_ENTRIES + 1)]
    except OSError as err:
        if is_shortage(err):
            raise  # there may be files: the gateway tries again
        return []
    if len(names) > _MOST_ENTRIES:
        findings.warn(
            str(folder), f"has more than {_MOST_ENTRIES} entries, of which the others are ignored"
        )
    return [name for name in names if not name.startswith(".")]


def _unzipped(root: Path, path: PurePosixPath, findings: Findings) -> Sequence[ConfFile]:
    """Return the files in the zip file at `path`; one that cannot be used is reported."""
    from gateway.settings.archive import LARGEST_ARCHIVE, members  # noqa: PLC0415 - rarely needed

    try:
        raw, open_to_all = files.contents(files.inside(root, path), LARGEST_ARCHIVE)
        found = members(raw)
    except OSError as err:
        if is_shortage(err):
            raise
        reason = f"cannot be read ({err.strerror or 'no reason given'})"
        findings.warn(str(path), f"is not used: it {reason}")
        return ()
    except ValueError as err:
        findings.warn(str(path), f"is not used: it {err}")
        return ()
    if not found:
        findings.warn(str(path), "is not used: it has no file called *.conf")
    elif open_to_all:
        files.report_open_to_all(path, str(path), findings)
    return [
        ConfFile(path / _shown(member.name), member.name, member)
        for member in sorted(found, key=lambda one: (one.name != "wg0.conf", one.name))
    ]


def _shown(name: str) -> str:
    """Return the name of a member as a part of a path in messages: others have chosen it."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name[-_LONGEST_NAME:])
    return safe_text(plain.replace("..", "").lstrip("/"))
