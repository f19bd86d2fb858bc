"""The answers of the control API, made of the gateway's status; pure.

Under /v1 they are what gluetun answers, as far as its clients read it: its documentation of the
control server, and the Go structures of its package `server`. Under /api/v1 they are our own.
"""

import json
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from gateway.model.frozen import frozen

JSON_TYPE = "application/json"

Body = Mapping[str, Any]


@frozen
class Answer:
    """An answer: its code, what it says, and headers in addition to those that all have."""

    code: int
    body: bytes
    kind: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = field(default=())


def in_json(content: object, code: int = 200) -> Answer:
    """Return an answer in JSON, as compact as gluetun's: scripts look for `"port":1234`."""
    return Answer(code, json.dumps(content, separators=(",", ":")).encode() + b"\n")


def error(code: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return why a request is not followed."""
    return replace(in_json({"error": text}, code), headers=headers)


def dns_status(status: Body) -> str:
    """Return the state of the gateway's own resolver in gluetun's words."""
    resolver = status.get("resolver")
    if not resolver:
        return "stopped"
    if resolver["answers"]:
        return "running"
    return "crashed" if resolver["problem"] else "starting"


def ports(status: Body) -> list[int]:
    """Return the forwarded ports as the internet sees them."""
    return list(dict.fromkeys(it["port"] for it in status.get("forwarded_ports", ())))


def forwarded(status: Body) -> dict[str, Any]:
    """Return what clients that pass the port on read: 0 where none is forwarded."""
    found = ports(status)
    return {"port": found[0] if found else 0, "ports": found}


ADDRESS_FIELDS = (
    *("region", "country", "city", "hostname"),
    *("location", "organization", "postal_code", "timezone"),
)


def public_address(status: Body) -> dict[str, str]:
    """Return where the internet sees the tunnel; texts that are not known are empty.

    All are there, because some clients take a missing one for an error.
    """
    known = status.get("public_ip") or {}
    found = {name: str(known.get(name) or "") for name in ADDRESS_FIELDS}
    return {"public_ip": str(known.get("address") or ""), **found}


def version(status: Body) -> dict[str, str]:
    """Return which gateway this is."""
    return {"version": str(status["version"]), "commit": "unknown", "created": "unknown"}


def settings(provider: str, selection: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return what clients read of the configuration: no key, no name, no password."""
    chosen = {"vpn": "wireguard", **selection}
    return {
        "type": "wireguard",
        "provider": {"name": provider or "custom", "server_selection": chosen},
    }
