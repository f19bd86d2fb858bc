"""Loads the configuration of a compose service that is not running.

A temporary folder links to the files that the service mounts, so that `load` finds them at the
paths they have in the container.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gateway.commands.check.advice import Advice
from gateway.commands.check.comparing import compare
from gateway.commands.check.compose import name_of, read_service
from gateway.commands.check.mounting import Mounts
from gateway.commands.check.service import Service, for_service
from gateway.errors import ConfigError, Notice, Problem
from gateway.model import Secret
from gateway.model.frozen import frozen
from gateway.settings.assemble import Loaded, load
from gateway.settings.findings import Findings
from gateway.settings.values import safe_quote


@frozen
class Trial:
    """What checking came to: `loaded` is None if there are problems, `advice` without a service."""

    loaded: Loaded | None
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    advice: Advice | None = None

    def result(self) -> Loaded:
        """Return the configuration. Raises ConfigError if there are problems."""
        if not self.loaded:
            raise ConfigError(self.problems, self.notices)
        return self.loaded


def failed(err: ConfigError) -> Trial:
    """Return what came of a configuration that is wrong."""
    return Trial(None, err.problems, err.notices)


def try_variables(environ: Mapping[str, str]) -> Trial:
    """Check the variables of a process, with the files of this machine."""
    try:
        loaded = load(environ)
    except ConfigError as err:
        return failed(err)
    return Trial(loaded, (), loaded.notices)


def try_compose(file: Path, service: str | None, environ: Mapping[str, str]) -> Trial:
    """Check the configuration that `service` of the compose `file` would have.

    `environ` holds the shell's variables for the file; `.env` next to the file adds to them.
    Raises ConfigError if the service is not there.
    """
    findings = Findings()
    found = read_service(file, service, environ, findings)
    return try_service(found, name_of(file), findings)


def try_service(service: Service, where: str, findings: Findings) -> Trial:
    """Load the configuration that a service would have, and compare both.

    `findings` are those of reading the service, from a file that messages call `where`.
    """
    loaded: Loaded | None = None
    of_config = Findings()
    with tempfile.TemporaryDirectory(prefix="gateway-check-") as folder:
        _lay_out(service.mounts, Path(folder), where, findings)
        try:
            loaded = load(service.variables, Path(folder))
        except ConfigError as err:
            of_config = Findings(dict.fromkeys(err.problems), dict.fromkeys(err.notices))
        else:
            of_config.notices |= dict.fromkeys(loaded.notices)
    advice = compare(service, loaded.config if loaded else None, where, findings)
    findings.include(of_config)
    notices = tuple(
        replace(one, message=for_service(one.message, service)) for one in findings.notices
    )
    if findings.problems or not loaded:
        return Trial(None, tuple(findings.problems), notices, advice)
    return Trial(replace(loaded, notices=notices), (), notices, advice)


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
