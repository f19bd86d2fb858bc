"""Has the lists of blocked names made into one zone for the gateway's own resolver.

A process without rights reads them (`block_process`). This one only waits for it, and not for long.
"""

import asyncio
import os

import structlog

from gateway.errors import GatewayError, NetworkError
from gateway.model.frozen import frozen
from gateway.model.name_server import BlockFile
from gateway.services.own_module import command_of
from gateway.services.resolver.files import Home
from gateway.system import process

RESULT, SUMMARY = 3, 4
"""The descriptors of the process that reads the lists: files for the zone and for a summary."""
TIME_LIMIT = 60.0
"""Seconds for all lists: a file may be on a network drive."""
LONGEST = 1000
"""Characters of the summary."""
_MODULE = "gateway.services.resolver.block_process"


@frozen
class Made:
    """How many names a zone blocks, how many each list has, in order, and what was left out.

    That is empty for nothing.
    """

    names: int
    each: tuple[int, ...]
    left_out: str


async def zone_for(
    lists: tuple[BlockFile, ...], passed: tuple[str, ...], files: Home
) -> Made | None:
    """Write the zone of `lists`; return what it has, None if that fails.

    Names have to resolve even if a list is wrong, so that is only logged.
    """
    log = structlog.get_logger()
    try:
        result = files.new_zone()
        try:
            made = await make_zone(lists, passed, result)
            files.use_zone(result)
        finally:
            os.close(result)
    except (GatewayError, OSError, MemoryError, ValueError) as err:
        log.warning("could not read lists of blocked names", problem=str(err)[:LONGEST])
        return None
    log.info("lists of blocked names read", names=made.names, left_out=made.left_out)
    return made


async def make_zone(lists: tuple[BlockFile, ...], passed: tuple[str, ...], result: int) -> Made:
    """Write the zone of `lists` to the descriptor `result`. Raises GatewayError and OSError."""
    summary = os.memfd_create("summary", os.MFD_CLOEXEC)
    try:
        numbers = {RESULT: result, SUMMARY: summary}
        child = process.start(
            _command(lists, passed), on_line=_ignored, descriptors=numbers, leaves_nothing=True
        )
        try:
            done, _ = await asyncio.wait([child.exited], timeout=TIME_LIMIT)
        finally:
            await child.stop()
        if not done:
            raise NetworkError(f"not read after {TIME_LIMIT:g} s", "the lists")
        said = os.pread(summary, LONGEST, 0).decode("utf-8", "replace")
    finally:
        os.close(summary)
    if child.exited.result():
        reason = "".join(filter(str.isprintable, said))
        raise NetworkError(reason or str(child.end), "the lists")
    number, each, left_out = said.split("\n", 2)
    return Made(
        int(number), tuple(map(int, each.split())), "".join(filter(str.isprintable, left_out))
    )


def _command(lists: tuple[BlockFile, ...], passed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command of the process."""
    words = [",".join(passed), *(it.path for it in lists)]
    return command_of(_MODULE, *words)


def _ignored(_line: str) -> None:
    """Drop a line of the child: it writes none, unless Python itself fails."""
