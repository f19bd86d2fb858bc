"""Fetches lists of blocked names, and keeps what they block in files.

As with a provider's list, another process reads what the host sends (`block_list_process`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

from gateway.errors import MissingError, NetworkError
from gateway.model.frozen import frozen
from gateway.model.name_server import BlockFile, BlockList
from gateway.providers.kept import BLOCK_PLACES, blocked_name
from gateway.services.fetching.lists import STORE_TIME, ListFetcher
from gateway.services.own_module import command_of
from gateway.system.copied import keep_copy
from gateway.system.netns import OWN, Netns

_MODULE = "gateway.services.fetching.block_list_process"


@frozen
class Fetched:
    """The file that keeps a list, and a digest of what is in it."""

    file: BlockFile
    digest: bytes


class BlockListFetcher(ListFetcher):
    """Fetches one list at a time, as `ListFetcher` does, through `device`."""

    def __init__(
        self,
        environ: Mapping[str, str],
        netns: Netns = OWN,
        *,
        device: str,
        places: Sequence[Path] = tuple(map(Path, BLOCK_PLACES)),
    ) -> None:
        super().__init__(environ, netns, device=device, places=places)

    async def fetch_names(self, listed: BlockList) -> Fetched:
        """Fetch the list, and keep it in a file. Raises GatewayError and OSError."""
        fetched: list[Fetched] = []
        async with self._answer(_command(listed), listed.host) as result:

            def keep(result: int) -> None:
                fetched.append(Fetched(self._kept(listed, result), _digest(result)))

            await self._aside.run_with(result, keep, STORE_TIME)
        return fetched[0]

    def _kept(self, listed: BlockList, result: int) -> BlockFile:
        """Put the list into the first place that takes it. Raises MissingError and OSError."""
        try:
            path = keep_copy(self._places, blocked_name(listed), result)
        except OSError as err:
            raise MissingError(
                f"the list cannot be kept ({err.filename}: {err.strerror})",
                "mount a volume that the gateway can write to at /config",
            ) from err
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise NetworkError("another program has replaced it", str(path))
        return BlockFile(str(path), status.st_size, status.st_mtime_ns)


def _digest(descriptor: int) -> bytes:
    """Return a digest of an open file. Raises OSError."""
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").digest()


def _command(listed: BlockList) -> tuple[str, ...]:
    """Return the command of the process."""
    place = (listed.host, listed.target, str(listed.port))
    return command_of(_MODULE, *place)
