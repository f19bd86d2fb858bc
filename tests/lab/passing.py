"""Looks at a torrent client as the gateway does, in the namespace that it is started in.

    python -m tests.lab.passing

Each line of standard input is a JSON object: `kind`, `url` (address, port, path), `user`,
`password`, `port`, `addresses`, and perhaps `unless`. Each answer is one on standard output: what
came of the look, with the `seconds` that it took, or the `error`. The link is called wg0.
"""

import asyncio
import json
import sys
import time
from ipaddress import ip_address
from typing import Any

from gateway.errors import GatewayError
from gateway.model import Secret
from gateway.model.port_client import ClientKind, ClientUrl, PortClient
from gateway.policy.port_client import Wanted
from gateway.services.port_client.talk import Talk
from gateway.system.netns import OWN


def wanted(given: dict[str, Any]) -> Wanted:
    """Return what a line asks for."""
    address, port, path = given["url"]
    url = ClientUrl(ip_address(address), port, path)
    password = Secret(given["password"])
    client = PortClient(ClientKind(given["kind"]), url, given["user"], password)
    return Wanted(client, given["port"], tuple(map(ip_address, given["addresses"])))


async def looked(talk: Talk, given: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a look."""
    began = time.monotonic()
    unless = given.get("unless")
    try:
        look = await talk.look(wanted(given), None if unless is None else tuple(unless))
    except (GatewayError, OSError) as err:
        return {"error": str(err), "seconds": time.monotonic() - began}
    said: dict[str, Any] = {"seconds": time.monotonic() - began, "starts": talk.starts}
    if look is not None:
        said |= {"outcome": look.outcome, "detail": look.detail, "changed": look.changed}
        said |= {"seen": look.seen}
    return said


async def main() -> None:
    """Answer lines until there are no more."""
    talk = Talk(OWN)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await looked(talk, json.loads(line))), flush=True)  # noqa: T201
    await talk.stop()


if __name__ == "__main__":
    asyncio.run(main())
