"""The SOCKS5 server of `socks` as a process of its own.

It is run with the number of a descriptor and a user id, under which it continues without rights
once it has imported all: other users may not be able to read this file. The descriptor is that of a
file with its configuration as JSON: the addresses to `listen` at, the `port`, the `account` that
clients have to give, null for none, and the `subnets` that they come from, null for everywhere. It
writes a line where a client is refused. The firewall knows its user.
"""

import asyncio
import errno
import os
import socket
import sys

from gateway.services.confined import confine
from gateway.services.proxies.socks import Configuration, Server

BACKLOG = 512


def listeners(configuration: Configuration) -> list[socket.socket]:
    """Return the sockets that listen; an address of a family that is missing here is left out.

    Raises OSError.
    """
    found: list[socket.socket] = []
    problem: OSError | None = None
    for host in configuration.listen:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            found.append(listener(family, host, configuration.port))
        except OSError as err:
            if err.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise
            problem = err
    if not found:
        raise problem or OSError(errno.EADDRNOTAVAIL, "no address to listen at")
    return found


def listener(family: int, host: str, port: int) -> socket.socket:
    """Return a socket that listens, for clients of `family` alone. Raises OSError."""
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


async def serve(configuration: Configuration) -> None:
    """Serve, for ever. Raises OSError."""
    found = listeners(configuration)
    server = Server(configuration)
    async with asyncio.TaskGroup() as group:
        for it in found:
            group.create_task(server.accept(it))


def main() -> None:
    """Read the configuration, and serve."""
    with open(f"/dev/fd/{int(sys.argv[1])}", "rb") as file:  # noqa: PTH123 - a descriptor
        configuration = Configuration.of(file.read())
    os.close(int(sys.argv[1]))
    confine(int(sys.argv[2]))
    try:
        asyncio.run(serve(configuration))
    except OSError as err:
        sys.stderr.write(f"{err}\n")
        sys.stderr.flush()
        os._exit(1)
