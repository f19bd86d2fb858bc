"""The resolver configuration that workloads get, as text."""

from collections.abc import Iterable

from gateway.model import Address


def resolv_conf(resolvers: Iterable[Address]) -> str:
    """Return a resolv.conf(5) with `resolvers` and without any search domain.

    `search .` stands there because without it the C library takes the domain of the host's name
    as one. Without resolvers the C library would ask 127.0.0.1, where nobody answers.
    """
    lines = ["# Written by the gateway: names resolve in the tunnel, or not at all.", "search ."]
    return "\n".join([*lines, *(f"nameserver {address}" for address in resolvers)]) + "\n"
