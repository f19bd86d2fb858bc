"""The fetcher of lists, made when the first list is fetched: most gateways never do."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from gateway.model import Address, ServerList
from gateway.policy.states import Transfer
from gateway.system.netns import Netns

if TYPE_CHECKING:
    from gateway.services.lists import ListFetcher


class ListsOnDemand:
    """Fetches out of `netns`, through `device` if given; see `gateway.daemon.ports.Lists`."""

    def __init__(self, environ: Mapping[str, str], netns: Netns, device: str = "") -> None:
        self._environ = environ
        self._netns = netns
        self._device = device

    def open(self, listed: ServerList, server: Address) -> Transfer:
        """Make the socket; see `Lists.open`."""
        return self._fetcher.open(listed, server)

    async def fetch(self, listed: ServerList) -> None:
        """Fetch the list; see `Lists.fetch`."""
        await self._fetcher.fetch(listed)

    @cached_property
    def _fetcher(self) -> "ListFetcher":
        from gateway.services.lists import ListFetcher  # noqa: PLC0415 - seldom needed

        return ListFetcher(self._environ, self._netns, device=self._device)
