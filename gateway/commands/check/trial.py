"""Loads the configuration of a compose service that is not running.

A temporary folder links to the files that the service mounts, so that `load` finds them at the
paths they have in the container.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gateway.commands.check.compose import name_of, read_service
from gateway.commands.check.mounting import Mounts
from gateway.commands.check.published import compare
from gateway.errors import ConfigError
from gateway.model import Secret
from gateway.settings.assemble import Loaded, load
from gateway.settings.findings import Findings
from gateway.settings.values import safe_quote


def load_service(file: Path, service: str, environ: Mapping[str, str]) -> Loaded:
    """Load the configuration that `service` of the compose `file` would have.

    `environ` holds the shell's variables for the file; `.env` next to the file adds to them.
    Raises ConfigError with every problem there is, in the compose file and in what it configures.
    """
    findings = Findings()
    found = read_service(file, service, environ, findings)
    with tempfile.TemporaryDirectory(prefix="gateway-check-") as folder:
        _lay_out(found.mounts, Path(folder), name_of(file), findings)
        try:
            loaded = load(found.variables, Path(folder))
        except ConfigError as err:
            raise ConfigError(
                (*findings.problems, *err.problems), (*findings.notices, *err.notices)
            ) from None
    if not findings.problems:
        compare(found, loaded.config, name_of(file), findings)
    notices = (*findings.notices, *loaded.notices)
    if findings.problems:
        raise ConfigError(tuple(findings.problems), notices)
    return replace(loaded, notices=notices)


def _lay_out(mounts: Mounts, root: Path, where: str, findings: Findings) -> None:
    """Link the mounted files below `root`, those in other mounts after them."""
    for target, mount in sorted(mounts.items(), key=lambda mount: len(mount[0].parts)):
        try:
            _put(root, target, mount.source)
        except (OSError, ValueError):
            findings.problem(
                where, f"mounts something at {safe_quote(str(target))}, which is not a valid path"
            )


def _put(root: Path, target: PurePosixPath, source: Path | Secret) -> None:
    """Link `source` to its place below `root`; a link to a folder on the way is expanded.

    A text becomes a file that other users cannot read.
    """
    place = root
    for part in target.parts[1:-1]:
        place /= part
        if place.is_symlink():
            _open_up(place)
        place.mkdir(exist_ok=True)
    link = root.joinpath(*target.parts[1:])
    if link.is_symlink():
        link.unlink()
    if isinstance(source, Secret):
        link.touch(mode=0o600)
        link.write_text(source.reveal(), encoding="utf-8")
    elif not link.exists():
        link.symlink_to(source)


def _open_up(link: Path) -> None:
    """Replace a link to a folder by a folder of links."""
    folder = link.resolve()
    link.unlink()
    link.mkdir()
    for child in folder.iterdir() if folder.is_dir() else ():
        (link / child.name).symlink_to(child)
