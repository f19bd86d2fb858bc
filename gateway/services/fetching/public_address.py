"""Asks a service which address the gateway's requests come from, by one connection at a time.

As with a provider's list, another process reads what the host sends (`public_address_process`).
"""

import json
import os
from collections.abc import Mapping

from gateway.model.public_ip import AddressApi
from gateway.policy.public_address import LARGEST_LINES, PublicAddress, from_lines
from gateway.services.fetching.lists import AnswerError, ListFetcher
from gateway.services.fetching.registrar import SECRETS, file_of
from gateway.services.own_module import command_of
from gateway.system.netns import Netns

_MODULE = "gateway.services.fetching.public_address_process"


class AddressFetcher(ListFetcher):
    """Makes one request at a time, as `ListFetcher` does, through `device`."""

    def __init__(self, environ: Mapping[str, str], netns: Netns, *, device: str) -> None:
        super().__init__(environ, netns, device=device, places=())

    async def ask(self, api: AddressApi) -> PublicAddress:
        """Return what the service says. Raises GatewayError and OSError."""
        given = json.dumps({"token": api.token.reveal() if api.token else ""})
        with file_of(given) as secrets:
            async with self._answer(_command(api), api.host, {SECRETS: secrets}) as result:
                text = os.pread(result, LARGEST_LINES, 0).decode(errors="replace")
        try:
            return from_lines(text)
        except ValueError as err:
            raise AnswerError(str(err), api.host) from err


def _command(api: AddressApi) -> tuple[str, ...]:
    """Return the command of the process."""
    place = (api.kind, api.host, api.target, str(api.port))
    return command_of(_MODULE, *place)
