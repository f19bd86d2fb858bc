"""Parts that are made when they are first needed: most gateways never need them."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from gateway.model import Address, Endpoint, Errand, KeyRequest, Login, ServerList
from gateway.policy.diagnosis import Heard
from gateway.policy.states import Transfer
from gateway.system.netns import Netns

if TYPE_CHECKING:
    from gateway.services.fetching.lists import ListFetcher
    from gateway.services.fetching.registrar import Registrar
    from gateway.system.overheard import Overheard


class ProviderOnDemand:
    """Makes requests out of `netns`, through `device` if given.

    See `gateway.daemon.ports.ProviderHosts`.
    """

    def __init__(self, environ: Mapping[str, str], netns: Netns, device: str = "") -> None:
        self._environ = environ
        self._netns = netns
        self._device = device

    def open(self, errand: Errand, server: Address) -> Transfer:
        """Make the socket; see `ProviderHosts.open`."""
        if isinstance(errand, ServerList):
            return self._lists.open(errand, server)
        return self._registrar.open(errand, server)

    async def fetch(self, errand: Errand) -> None:
        """Do `errand`; see `ProviderHosts.fetch`."""
        if isinstance(errand, Login | KeyRequest):
            await self._registrar.carry_out(errand)
        elif isinstance(errand, ServerList):
            await self._lists.fetch(errand)

    @cached_property
    def _lists(self) -> "ListFetcher":
        from gateway.services.fetching.lists import ListFetcher  # noqa: PLC0415 - seldom needed

        return ListFetcher(self._environ, self._netns, device=self._device)

    @cached_property
    def _registrar(self) -> "Registrar":
        from gateway.services.fetching.registrar import Registrar  # noqa: PLC0415 - seldom needed

        return Registrar(self._environ, self._netns, device=self._device)


class OverheardOnDemand:
    """Listens in `netns` while handshakes fail; see `gateway.daemon.ports.Parts.overheard`."""

    def __init__(self, netns: Netns) -> None:
        self._netns = netns
        self._listener: Overheard | None = None

    def __call__(self, endpoints: tuple[Endpoint, ...]) -> Heard:
        """Return what was heard since the last call."""
        if endpoints:
            if self._listener is None:
                from gateway.system.overheard import Overheard  # noqa: PLC0415 - seldom needed

                self._listener = Overheard(self._netns)
            return self._listener.heard(endpoints)
        if self._listener is not None:
            self._listener.end()
            self._listener = None
        return Heard()
