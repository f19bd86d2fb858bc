"""Keeps how long the servers' handshakes took, for later starts; apart from the loop."""

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog

from gateway.errors import NetworkError
from gateway.model import Times
from gateway.providers.handshakes import FILE, dumped
from gateway.providers.kept import PLACES
from gateway.system.aside import Aside
from gateway.system.copied import replace_with_copy

STORE_TIME = 5.0
"""Seconds that a file system may take; nothing waits for it."""


class Memory:
    """Writes the newest times to the first of `places` that takes them."""

    def __init__(self, places: Sequence[Path] = tuple(map(Path, PLACES))) -> None:
        self._places = places
        self._aside = Aside("the times of handshakes")
        self._given = asyncio.Event()
        self._newest: tuple[Times, tuple[str, ...]] = (), ()

    def take(self, times: Times, servers: tuple[str, ...]) -> None:
        """Have the `times` of some of `servers` kept; does not wait."""
        self._newest = times, servers
        self._given.set()

    async def run(self) -> None:
        """Write whatever is taken, until cancelled; a failure costs only another measurement."""
        log = structlog.get_logger()
        while True:
            await self._given.wait()
            self._given.clear()
            times, servers = self._newest
            keep = partial(self._keep, dumped(times, servers, time.time()))
            try:
                await self._aside.run(keep, STORE_TIME)
            except (NetworkError, OSError, MemoryError) as err:
                log.warning("could not keep times of handshakes", problem=str(err))

    def _keep(self, content: bytes) -> None:
        """Put `content` into the first place that takes it. Raises OSError."""
        failure: OSError | None = None
        number = os.memfd_create("handshakes", os.MFD_CLOEXEC)
        try:
            os.write(number, content)
            for place in self._places:
                try:
                    replace_with_copy(place, FILE, number)
                except OSError as err:
                    failure = failure or err
                else:
                    return
        finally:
            os.close(number)
        if failure:
            raise failure
