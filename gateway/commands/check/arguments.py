"""Arguments of `docker run` and `podman run`, as keys of a compose service."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

_LISTS: Final = {
    "--cap-add": "cap_add",
    "--cap-drop": "cap_drop",
    "--publish": "ports",
    "-p": "ports",
    "--volume": "volumes",
    "-v": "volumes",
    "--env": "environment",
    "-e": "environment",
    "--label": "labels",
    "-l": "labels",
    "--expose": "expose",
    "--tmpfs": "tmpfs",
    "--env-file": "env_file",
}
_SINGLE: Final = {
    "--network": "network_mode",
    "--net": "network_mode",
    "--user": "user",
    "-u": "user",
    "--entrypoint": "entrypoint",
    "--hostname": "hostname",
    "-h": "hostname",
    "--name": "container_name",
}
_FLAGS: Final = {"--privileged": "privileged", "--read-only": "read_only"}
_SHARED: Final = ("host", "none", "bridge", "container:", "service:")


def split(text: str) -> list[str]:
    """Return the words of a command line. Raises ValueError where a quote is open."""
    return shlex.split(text)


def keys_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the keys of a service that the arguments set; the others are left out."""
    found: dict[str, Any] = {}
    for name, value in _options(words):
        if name in _LISTS:
            found.setdefault(_LISTS[name], []).append(value)
        elif name in _SINGLE:
            found[_SINGLE[name]] = value
        elif name in _FLAGS:
            found[_FLAGS[name]] = "false" if value == "false" else "true"
        elif name == "--health-cmd":
            found["healthcheck"] = {"test": value}
        elif name == "--no-healthcheck":
            found["healthcheck"] = {"disable": "true"}
    if not str(found.get("network_mode", "")).startswith(_SHARED):
        found.pop("network_mode", None)  # the name of a network
    return found


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options with their values, which are after = or the next word."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        takes_one = name in _LISTS or name in _SINGLE or name == "--health-cmd"
        if takes_one and not equals and rest:
            value = rest.pop(0)
        yield name, value


def merged(service: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return a service with more keys: lists add up, of others the latter counts."""
    for key, value in more.items():
        if isinstance(value, list):
            service[key] = [*service.get(key, []), *value]
        else:
            service[key] = value
    return service
