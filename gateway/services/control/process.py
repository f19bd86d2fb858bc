"""The process that serves the control API: another user where that may be had, and no rights.

It reads what anyone on the network sends, so it gives up everything before that. The gateway
sends it the roles, and it ends when the gateway does.
"""

import asyncio
import json
import os
import resource
import socket
from pathlib import Path

from gateway import __version__, control
from gateway.control.access import Gate, Holder
from gateway.control.link import Link
from gateway.control.messages import CHANNEL, LISTENER, LONGEST_ANSWER, Message
from gateway.control.server import MOST_CONNECTIONS, Connection, Shared
from gateway.control.streams import Streams
from gateway.system.rights import give_up_rights

MOST_MEMORY = 256 << 20
"""Bytes of address space."""
MOST_DESCRIPTORS = 512
"""Its clients, and a few of its own."""
LIMITS = (
    (resource.RLIMIT_AS, MOST_MEMORY),
    (resource.RLIMIT_NOFILE, MOST_DESCRIPTORS),
    (resource.RLIMIT_FSIZE, 0),
)
DENIED_EVERY = 10.0
"""Seconds between two reports of refused credentials to the gateway."""
DOCUMENT = Path(control.__file__).with_name("openapi.json")


def main() -> None:
    """Be the process, and end it."""
    document = described(__version__)
    listener, channel = socket.socket(fileno=LISTENER), socket.socket(fileno=CHANNEL)
    channel.setblocking(False)
    listener.setblocking(False)
    give_up_rights("the process of the control API", LIMITS)
    try:
        asyncio.run(_serve(listener, channel, document))
    finally:
        os._exit(0)


def described(version: str) -> bytes:
    """Return the OpenAPI document of the API."""
    document = json.loads(DOCUMENT.read_text("utf-8"))
    document["info"]["version"] = version
    return json.dumps(document).encode() + b"\n"


async def _serve(listener: socket.socket, channel: socket.socket, document: bytes) -> None:
    """Serve until the gateway has ended."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LONGEST_ANSWER)
    begun = asyncio.Event()

    def take(message: Message) -> None:
        holders = [
            Holder(it["name"], it["kind"], frozenset(it["routes"]), bytes.fromhex(it["digest"]))
            for it in message["roles"]
        ]
        shared.judge.gate = Gate(bytes.fromhex(message["key"]), holders)
        shared.routes.provider, shared.routes.selection = message["provider"], message["selection"]
        begun.set()

    reported_at = float("-inf")

    def denied(client: str) -> None:
        nonlocal reported_at
        if loop.time() - reported_at > DENIED_EVERY:
            reported_at = loop.time()
            link.report({"denied": client})

    link = Link(reader, writer, take, lambda name, data: streams.send(name, data))  # noqa: PLW0108 - it follows
    streams = Streams(link)
    shared = Shared(link, streams, denied)
    shared.routes.document = document
    async with asyncio.TaskGroup() as group:
        group.create_task(_end_with(link))
        await begun.wait()
        server = await loop.create_server(
            lambda: Connection(shared), sock=listener, backlog=MOST_CONNECTIONS
        )
        group.create_task(server.serve_forever())
        group.create_task(streams.keep_alive())


async def _end_with(link: Link) -> None:
    """End the process when the gateway has hung up."""
    await link.run()
    os._exit(0)
