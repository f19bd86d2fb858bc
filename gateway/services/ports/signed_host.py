"""Makes the requests for signed ports to a provider's server in the tunnel, and keeps the ports.

The sockets are bound to the tunnel's interface. Tokens and signatures are handed to the process
that talks to the server (`signed_process`) in a file in memory, as `registrar` does it.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.errors import MissingError, NetworkError
from gateway.model import INTERFACE, Address, Errand, Login, Tunnel
from gateway.providers.kept import PLACES, ports_name
from gateway.providers.server import PortService
from gateway.providers.signed_ports import KeptPort, dumped
from gateway.services.fetching.lists import RESULT, STORE_TIME
from gateway.services.fetching.registrar import SECRETS, Registrar, file_of
from gateway.services.own_module import command_of
from gateway.services.ports.signed_lines import LONGEST, Known, known_in, port_in
from gateway.system.copied import keep_copy
from gateway.system.lookup import EndpointLookup
from gateway.system.netns import OWN, Netns

REQUEST_TIME = 30.0
"""Seconds for one request, from the connection to the end of the answer."""
KNOWN_TIME = 10.0
_MODULE = "gateway.services.ports.signed_process"


class SignedPortHost(Registrar):
    """The servers of `provider`, which forward ports as `service` says."""

    def __init__(
        self,
        provider: str,
        service: PortService,
        environ: Mapping[str, str],
        netns: Netns = OWN,
        *,
        device: str = INTERFACE,
        places: Sequence[Path] = tuple(map(Path, PLACES)),
    ) -> None:
        super().__init__(environ, netns, device=device, places=places)
        self._provider = provider
        self._service = service
        self._lookup = EndpointLookup(None, netns)
        self.starts = 0

    async def known(self, tunnel: Tunnel) -> Known | None:
        """Return what is kept for `tunnel`, None if nothing is known of its server.

        Raises GatewayError and OSError.
        """
        given = {
            "kind": "known",
            "key": tunnel.peers[0].public_key,
            "address": str(tunnel.addresses[0].ip),
            "places": json.dumps([str(place) for place in self._places]),
        }
        with file_of(json.dumps(self._common | given)) as secrets, file_of("") as result:
            self.starts += 1
            async with _limited(KNOWN_TIME):
                await self._run(
                    command_of(_MODULE), {RESULT: result, SECRETS: secrets}, self._provider
                )
            return known_in(_text(result))

    async def sign(self, server: Known, token: str) -> KeptPort:
        """Return a port that the server signs. Raises GatewayError and OSError.

        A LoginError means that the server refuses it, because of the token for one.
        """
        found = port_in(await self._asked("sign", server, {"token": token}))
        if found is None:
            raise NetworkError("the answer is not in the known form", server.server)
        return found

    async def bind(self, server: Known, kept: KeptPort) -> None:
        """Have the server forward a port. Raises GatewayError and OSError; LoginError as `sign`."""
        signed = kept.signed
        given = {"payload": signed.payload, "signature": signed.signature}
        await self._asked("bind", server, given)

    async def log_in(self, login: Login, resolver: Address | None) -> str:
        """Return a new token. Raises GatewayError and OSError; LoginError if it is refused."""
        if resolver is None:
            raise MissingError("the tunnel has no resolver", "set DNS_ADDRESS")
        self._lookup.resolver = resolver
        async with _limited(REQUEST_TIME):
            self._lookup.open()
            addresses = (await self._lookup.ask((login.host,)))[login.host]
            self.open(login, addresses[0])
            self.starts += 1
            return await self.token_of(login)

    async def keep(self, ports: Iterable[KeptPort]) -> None:
        """Replace the file of signed ports. Raises MissingError and NetworkError."""
        text = dumped(ports)

        def store() -> None:
            with file_of(text) as file:
                try:
                    keep_copy(self._places, ports_name(self._provider), file, is_secret=True)
                except OSError as err:
                    raise MissingError(
                        f"the forwarded port cannot be kept ({err.filename}: {err.strerror})",
                        "mount a volume that the gateway can write to at /config, or the port is "
                        "another one after the next start",
                    ) from err

        await self._aside.run(store, STORE_TIME)

    @property
    def _common(self) -> dict[str, str]:
        return {"provider": self._provider, "authority": self._authority}

    async def _asked(self, kind: str, server: Known, given: dict[str, str]) -> str:
        """Return what the process makes of the server's answer. Raises GatewayError, OSError."""
        service = self._service
        place = Errand(self._provider, server.server, "", service.port)
        given = {"kind": kind, "server": server.server, "port": str(service.port)} | given
        async with _limited(REQUEST_TIME):
            self.open(place, server.gateway)
            with file_of(json.dumps(self._common | given)) as secrets:
                self.starts += 1
                more = {SECRETS: secrets}
                async with self._answer(command_of(_MODULE), server.server, more) as result:
                    return _text(result)


@asynccontextmanager
async def _limited(seconds: float) -> AsyncIterator[None]:
    """Raise NetworkError if what is done within takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as err:
        raise NetworkError(f"not done after {seconds:g} s", "the request") from err


def _text(result: int) -> str:
    return os.pread(result, LONGEST, 0).decode("ascii", "replace")
