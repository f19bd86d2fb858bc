"""Hosts: addresses in a namespace, with services that others reach and a place to ask from."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab import services
from tests.lab.namespace import Namespace
from tests.lab.process import Household

ECHO_PORT = 7
HTTP_PORT = 80
DNS_PORT = 53


def echo(address: str, port: int = ECHO_PORT) -> dict[str, Any]:
    """Describe an echo on TCP and UDP that returns the client its address."""
    return {"kind": "echo", "address": address, "port": port}


def http(address: str, port: int = HTTP_PORT) -> dict[str, Any]:
    """Describe an HTTP server that answers with the client's address."""
    return {"kind": "http", "address": address, "port": port}


def dns(
    address: str, port: int = DNS_PORT, names: Mapping[str, Mapping[str, str]] | None = None,
    **answers: str,
) -> dict[str, Any]:  # fmt: skip
    """Describe a resolver on TCP and UDP; `answers` gives the addresses for A and for AAAA.

    `names` has other answers for single names.
    """
    described = {"kind": "dns", "address": address, "port": port, "answers": answers}
    return described | {"names": names or {}}


@dataclass(frozen=True)
class Address:
    """One host's address in each family."""

    ipv4: str
    ipv6: str

    def __iter__(self) -> Any:
        """Yield both, IPv4 first."""
        return iter((self.ipv4, self.ipv6))


class Services:
    """One process that serves a list of services inside a namespace."""

    def __init__(
        self, namespace: Namespace, listed: Sequence[dict[str, Any]], household: Household
    ) -> None:
        """Start serving; `wait` before the first use."""
        argv = [sys.executable, "-I", "-S", services.__file__, json.dumps(listed)]
        self._child = household.start(namespace.command(argv), f"{namespace.name}.services")

    def wait(self) -> "Services":
        """Wait until every service listens."""
        self._child.wait_for("ready")
        return self

    def events(self, **wanted: object) -> list[dict[str, Any]]:
        """Return what arrived, oldest first, filtered by fields (kind="dns", name=..., ...).

        Fields: at (monotonic seconds), kind, transport, address, port, client, client_port; and
        name and type for a query, data for what a datagram began with.
        """
        lines = self._child.output().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [
            event
            for event in found
            if all(event.get(name) == value for name, value in wanted.items())
        ]

    def close(self) -> None:
        """Stop serving."""
        self._child.close()
