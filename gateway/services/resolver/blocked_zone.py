"""The zone of blocked names of one resolver: of which lists it is made, and what it has."""

import asyncio
from collections.abc import Mapping

from gateway.model.name_server import BlockFile, NameServer
from gateway.services.resolver.files import Home


class BlockedZone:
    """The zone in `files`. It may have no names yet, if lists are fetched.

    `fetched` are the files of those lists. `total` is how many names it has, `names` how many each
    list has, by the path of its file.
    """

    def __init__(self, server: NameServer, files: Home) -> None:
        self._files = files
        # A list must not keep itself from being fetched again.
        self._passed = (*server.unblocked, *(it.host for it in server.lists))
        self._is_wanted = bool(server.lists)
        self._writing = asyncio.Lock()
        self.fetched: tuple[BlockFile, ...] = ()
        self.total = 0
        self.names: Mapping[str, int] = {}

    async def make(self, blocks: tuple[BlockFile, ...]) -> bool:
        """Write the zone of `blocks` and of what was fetched; return whether it is to be used.

        If that fails, the former one stays, with its `total`.
        """
        if not blocks and not self._is_wanted:
            self.total = 0
            return False
        from gateway.services.resolver import blocking  # noqa: PLC0415 - many have no list

        async with self._writing:
            lists = (*blocks, *self.fetched)
            made = await blocking.zone_for(lists, self._passed, self._files)
            if made is None:
                return False
            self.total = made.names
            self.names = dict(zip((it.path for it in lists), made.each, strict=False))
        return self.total > 0 or self._is_wanted
