"""Ports at which other containers reach the workloads although no port is published.

A reverse proxy has the port in labels or in a variable; other services have it in addresses of
theirs; `expose` lists it.
"""

import re
from collections.abc import Iterator
from typing import Final

from gateway.commands.check.service import Service
from gateway.model import PortRange
from gateway.settings import values
from gateway.settings.values import safe_text

_LABELS: Final = (
    re.compile(r"(traefik\.(?:http|tcp|udp)\.services\.[^.=]+\.loadbalancer\.server\.port)=(\d+)"),
    re.compile(r"(traefik\.port|swag_port|swag\.port|tsdproxy\.container_port)=(\d+)"),
    re.compile(r"(caddy[\w.]*reverse_proxy[\w.]*)=.*\{\{\s*upstreams(?:\s+\w+)?\s+(\d+)\s*\}\}"),
)
"""Labels of reverse proxies with the port of the container."""

_VARIABLES: Final = ("VIRTUAL_PORT",)
"""Variables with the port for nginx-proxy."""

_LARGEST_TEXT: Final = 64 * 1024


def reached(service: Service) -> Iterator[tuple[PortRange, str]]:
    """Yield the ports and why they are thought to be reached; the same one may come again."""
    owner = service.owner
    for text in owner.keys.get("expose", ()):
        yield from _ports(str(text), "expose")
    for variable in _VARIABLES:
        yield from _ports(owner.variables.get(variable, ""), variable)
    joining = [one for one in service.neighbours if one.joins]
    labels = [*owner.keys.get("labels", ()), *service.keys.get("labels", ())]
    for label in (*labels, *(text for one in joining for text in one.texts)):
        for pattern in _LABELS:
            if found := pattern.match(label[:_LARGEST_TEXT]):
                protocol = "udp" if ".udp." in found[1] else "tcp"
                yield from _ports(f"{found[2]}/{protocol}", f"label {safe_text(found[1])}")
    names = "|".join(re.escape(name) for name in {*owner.names, *service.names})
    address = re.compile(rf"(?<![\w.-])(?:{names}):(\d{{2,5}})(?![\d:])")
    for one in service.neighbours:
        for text in () if one.joins else one.texts:
            for port in address.findall(text[:_LARGEST_TEXT]):
                yield from _ports(f"{port}/tcp", f"an address in {safe_text(one.name)}")


def _ports(text: str, reason: str) -> Iterator[tuple[PortRange, str]]:
    try:
        found = values.ports(text if "/" in text else f"{text}/tcp") if text else ()
    except ValueError:
        return
    for ports in found:
        yield ports, reason
