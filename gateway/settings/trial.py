"""Loading the configuration of a compose service that has not been started.

The files that the service mounts are laid out in a temporary folder as links, so that `load` finds
them where the container would have them. What Compose and the configuration say of each other is
compared at the end: capabilities, published ports.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from gateway.errors import ConfigError
from gateway.model import Config, Protocol
from gateway.settings import Loaded, load
from gateway.settings.compose import Mounts, Service, read_service
from gateway.settings.findings import Findings
from gateway.settings.values import shown


def load_service(file: Path, service: str, environ: Mapping[str, str]) -> Loaded:
    """Load the configuration that `service` of the compose `file` would have.

    `environ` is the shell's, for variables in the file; `.env` beside the file fills the rest.
    Raises ConfigError with every problem there is, in the compose file and in what it configures.
    """
    findings = Findings()
    found = read_service(file, service, environ, findings)
    with tempfile.TemporaryDirectory(prefix="gateway-check-") as folder:
        _lay_out(found.mounts, Path(folder), str(file), findings)
        try:
            loaded = load(found.variables, Path(folder))
        except ConfigError as err:
            raise ConfigError((*findings.problems, *err.problems)) from None
    if findings.problems:
        raise ConfigError(tuple(findings.problems))
    _compare(found, loaded.config, str(file), findings)
    return replace(loaded, notices=(*findings.notices, *loaded.notices))


def _lay_out(mounts: Mounts, root: Path, where: str, findings: Findings) -> None:
    """Link the mounted files below `root`, those in other mounts after them."""
    for target, source in sorted(mounts.items(), key=lambda mount: len(mount[0].parts)):
        try:
            _link(root, target, source)
        except (OSError, ValueError):
            findings.wrong(where, f"mounts something at {shown(str(target))}, which is no path")


def _link(root: Path, target: PurePosixPath, source: Path) -> None:
    """Link `source` to its place below `root`; a mounted folder in the way is opened up."""
    place = root
    for part in target.parts[1:-1]:
        place /= part
        if place.is_symlink():
            _open_up(place)
        place.mkdir(exist_ok=True)
    link = root.joinpath(*target.parts[1:])
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(source)


def _open_up(link: Path) -> None:
    """Replace a link to a folder by a folder of links."""
    folder = link.resolve()
    link.unlink()
    link.mkdir()
    for child in folder.iterdir() if folder.is_dir() else ():
        (link / child.name).symlink_to(child)


def _compare(service: Service, config: Config, where: str, findings: Findings) -> None:
    """Tell where the service and its configuration do not go together."""
    if not {"NET_ADMIN", "ALL"} & set(service.capabilities):
        findings.warn(where, "cap_add has no NET_ADMIN, without which nothing works; add it")
    for number, protocol in map(_published, service.ports):
        if number is not None and not any(
            ports.protocol == protocol and ports.first <= number <= ports.last
            for ports in config.input_ports
        ):
            findings.warn(
                where,
                f"port {number}/{protocol} is published, and closed until FIREWALL_INPUT_PORTS "
                "lists it",
            )


def _published(entry: Any) -> tuple[int | None, Protocol]:
    """Return the container's port and the protocol of an entry of `ports`."""
    if isinstance(entry, dict):
        text = f"{entry.get('target', '')}/{entry.get('protocol', 'tcp')}"
    else:
        text = str(entry).rpartition(":")[2]
    number, _, protocol = text.partition("/")
    known = Protocol.UDP if protocol.lower() == "udp" else Protocol.TCP
    return (int(number) if number.isascii() and number.isdigit() else None), known
