"""Drives a real tunnel backend in the namespaces of its own process, for tests in another one.

Reads pickled calls from standard input, (method, arguments), and writes pickled answers to standard
output, (result, error or None); the log goes to standard error. The backend needs a process of its
own: it collects every child of the process, and it acts on the namespaces that the process is in.
"""

import asyncio
import pickle
import sys

import structlog

from gateway.errors import GatewayError
from gateway.model import INTERFACE, Implementation
from gateway.system import process
from gateway.system.links import Links
from gateway.system.netns import OWN, Netns
from gateway.tunnel import TunnelBackend
from gateway.tunnel.choose import choose


async def answer(
    backend: TunnelBackend | None, method: str, arguments: tuple[object, ...]
) -> object:
    """Return the result of a call, or the error that it raised."""
    try:
        if method == "choose":
            implementation, descriptor = arguments
            netns = OWN if descriptor is None else Netns.of_descriptor(int(descriptor), "another")
            return choose(Implementation(implementation), Links(INTERFACE, netns))
        return await getattr(backend, method)(*arguments)
    except GatewayError as err:
        return err


def describe(err: GatewayError) -> tuple[object, ...]:
    """Return class, text and attributes of an error; pickle alone cannot rebuild all of them."""
    return type(err), err.args, vars(err)


async def main() -> None:
    """Serve until standard input ends; then the process ends as after SIGKILL, without cleaning."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    process.reap_orphans()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    backend: TunnelBackend | None = None
    while True:
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
        except asyncio.IncompleteReadError:
            return
        method, arguments = pickle.loads(await reader.readexactly(size))  # noqa: S301 - our own test
        result = await answer(backend, method, arguments)
        if method == "choose" and not isinstance(result, GatewayError):
            backend, result = result, result.name  # type: ignore[assignment, attr-defined]
        failed = isinstance(result, GatewayError)
        data = pickle.dumps((None, describe(result)) if failed else (result, None))
        sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(main())
