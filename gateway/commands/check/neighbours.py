"""Reads the other services of a compose project, which may share or use the gateway's network."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from gateway.commands.check.interpolate import Interpolator
from gateway.commands.check.mounting import as_list, as_mapping
from gateway.commands.check.project import Project, Source
from gateway.commands.check.service import Neighbour
from gateway.errors import ConfigError
from gateway.settings.findings import Findings

_SAYING: Final = ("environment", "labels", "command", "entrypoint", "healthcheck")
_READ: Final = ("network_mode", "image", *_SAYING)


def as_texts(value: Any) -> list[str]:
    """Return the entries of a list, a mapping or a text, of a mapping as NAME=value."""
    if isinstance(value, dict):
        return [f"{name}={one}" for name, one in value.items() if one is not None]
    return [str(one) for one in as_list(value) if one is not None]


def names_of(name: str, keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names under which other containers reach a service."""
    aliases = (
        alias
        for network in as_mapping(keys.get("networks")).values()
        for alias in as_texts(as_mapping(network).get("aliases"))
    )
    found = (name, keys.get("container_name"), keys.get("hostname"), *aliases)
    return tuple(dict.fromkeys(str(one) for one in found if one))


def neighbours(
    project: Project, own: Collection[str], containers: Collection[str]
) -> Iterator[Neighbour]:
    """Yield the services of a project that are not among `own`.

    Those join whose network is that of a service in `own`, or of a container in `containers`.
    """
    modes = {f"service:{name}" for name in own} | {f"container:{name}" for name in containers}
    for source in project.sources:
        for name, service in source.services.items():
            if name not in own and isinstance(service, dict):
                yield _neighbour(source, str(name), service, modes)


def _neighbour(
    source: Source, name: str, service: Mapping[str, Any], modes: Collection[str]
) -> Neighbour:
    """Return a service; faults in it are not the gateway's."""
    reader = Interpolator(source.where, source.shell, Findings())
    try:
        said = {key: reader.value(service[key], key) for key in _READ if key in service}
    except ConfigError:
        return Neighbour(name, joins=False)
    return Neighbour(
        name,
        str(said.get("network_mode")) in modes,
        tuple(text for key in _SAYING for text in as_texts(said.get(key))),
        str(said.get("image") or ""),
    )
