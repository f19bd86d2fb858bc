"""Picking the server of a peer: from the list of servers, the file, or the two variables."""

from dataclasses import replace
from typing import Any, Final

from gateway.model import NamedEndpoint
from gateway.settings.candidates import at, host_of
from gateway.settings.findings import Findings
from gateway.settings.picking import ENDPOINT, Picker
from gateway.settings.quickfiles import Part, Value
from gateway.settings.sources import Variables

PARTS: Final = ("wireguard_endpoint_ip", "wireguard_endpoint_port")
"""The variables that make one endpoint together."""


def check_alone(variables: Variables, findings: Findings) -> None:
    """Refuse one server beside the list of them."""
    for name in PARTS:
        if name in variables.given:
            findings.wrong(
                variables.where(name), "is set beside WIREGUARD_ENDPOINTS; remove one of them"
            )


def key_of_first(pick: Picker) -> str | None:
    """Return the first endpoint's own key when every one of `WIREGUARD_ENDPOINTS` has one."""
    choices = pick.variables.values.wireguard_endpoints or ()
    keys = [choice.public_key for choice in choices]
    return keys[0] if all(keys) and keys else None


def pick_endpoint(pick: Picker, part: Part) -> Any:
    """Return the endpoint of a peer: first of the list, else the file's, else the variables'."""
    choices = pick.variable("wireguard_endpoints")
    if choices:
        first = Value(choices.value[0].endpoint, choices.where)
        return pick.first(ENDPOINT, first, part.get(ENDPOINT))
    place, port = pick.variable("wireguard_endpoint_ip"), pick.variable("wireguard_endpoint_port")
    if ENDPOINT in part:
        return _files_endpoint(pick, part[ENDPOINT], place, port)
    if place and port:
        return at(place.value, port.value)
    pick.lacks = True
    if "wireguard_endpoints" in pick.variables.unreadable:
        return None
    if pick.file and not place and not port:
        pick.require(ENDPOINT, None, part)
    else:
        without_file = replace(pick, file=None)
        without_file.require("wireguard_endpoint_ip", place)
        without_file.require("wireguard_endpoint_port", port)
    return None


def _files_endpoint(pick: Picker, in_file: Value, place: Value | None, port: Value | None) -> Any:
    """Return a file's endpoint; where it is a name, the address that a variable says for it."""
    if not place and not port:
        return pick.first(ENDPOINT, in_file, None)
    if any(pick.in_secret_file(name) for name in PARTS):
        return _secret_endpoint(pick, in_file, place, port)
    written = at(
        place.value if place else host_of(in_file.value),
        port.value if port else in_file.value.port,
    )
    if not isinstance(in_file.value, NamedEndpoint) or isinstance(written, NamedEndpoint):
        variable = Value(written, (place or port or in_file).where)
        return pick.first(ENDPOINT, in_file, variable)
    pick.findings.tell(
        in_file.where, f"Endpoint {in_file.value} is reached at {written}, as the variables say"
    )
    pick.origins["wireguard_endpoint_ip"] = (place or in_file).where
    pick.origins["wireguard_endpoint_port"] = (port or in_file).where
    return written


def _secret_endpoint(pick: Picker, in_file: Value, place: Value | None, port: Value | None) -> Any:
    """Return a file's endpoint with the address or the port of a secret file instead of its own."""
    address = Value(host_of(in_file.value), in_file.where)
    number = Value(in_file.value.port, in_file.where)
    part = dict(zip(PARTS, (address, number), strict=True))
    for name, variable in zip(PARTS, (place, port), strict=True):
        strong, weak = (
            (variable, part[name]) if pick.in_secret_file(name) else (part[name], variable)
        )
        part[name] = Value(pick.first(name, strong, weak), (strong or part[name]).where)
    return at(*(part[name].value for name in PARTS))
