"""Frozen values for forwarded ports, part of the configuration (`gateway.model`)."""

from dataclasses import field
from enum import StrEnum
from ipaddress import IPv4Address

from gateway.model.frozen import frozen

STATUS_FILE = "/tmp/gluetun/forwarded_port"  # noqa: S108 - where the tools of users look for it
"""The file with the forwarded ports, unless the user names another one."""
MOST_PORTS = 5
"""The largest number of ports that are asked for."""


class ForwarderKind(StrEnum):
    """How a server is asked for ports; the values are what users write."""

    PROTONVPN = "protonvpn"
    NATPMP = "natpmp"
    PCP = "pcp"
    SIGNED = "private internet access"


@frozen
class Forwarding:
    """Which ports the server is asked for, and who gets to know them.

    `gateway` is the host in the tunnel that is asked, None for the one that follows from the
    tunnel. `count` ports are wanted. What arrives for the first one goes to the first of
    `listening`, and so on; without an entry it goes to the port itself. `status_file` is "" for
    none. The commands are argument lists with templates, empty for none; an argument may be a
    secret.
    """

    kind: ForwarderKind
    gateway: IPv4Address | None = None
    count: int = 1
    listening: tuple[int, ...] = ()
    status_file: str = STATUS_FILE
    up_command: tuple[str, ...] = field(default=(), repr=False)
    down_command: tuple[str, ...] = field(default=(), repr=False)
