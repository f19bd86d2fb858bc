"""Logs in to a VPN provider, and has the user's key registered with its servers.

The name, the password and the token are handed to the process that talks to the host
(`key_process`) in a file in memory without a name: they are in no argument and in no environment.
What a server answers is appended, unread, to a file that only root can read. `settings` distrusts
it as it does a list.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import MissingError, NetworkError
from gateway.model import KeyRequest, Login
from gateway.providers.kept import PLACES, registrations_name
from gateway.services.fetching.lists import STORE_TIME, ListFetcher
from gateway.services.own_module import command_of
from gateway.system.copied import keep_copy
from gateway.system.netns import OWN, Netns

SECRETS = 5
"""The descriptor of the process that has the secrets of the request."""
AUTHORITY_FILE = "PROVIDER_CERT_FILE"
"""A variable of the gateway alone that names another authority than the provider's: for tests.

Like SSL_CERT_FILE, it is read from the environment that the container was started with.
"""
LARGEST_ANSWER = 4096
_MODULE = "gateway.services.fetching.key_process"


class Registrar(ListFetcher):
    """Makes one request at a time, as `ListFetcher` does."""

    def __init__(
        self,
        environ: Mapping[str, str],
        netns: Netns = OWN,
        *,
        device: str = "",
        places: Sequence[Path] = tuple(map(Path, PLACES)),
    ) -> None:
        super().__init__(environ, netns, device=device, places=places)
        self._authority = environ.get(AUTHORITY_FILE, "")
        self._token = ""
        self._answers: tuple[str, ...] = ()

    async def carry_out(self, errand: Login | KeyRequest) -> None:
        """Log in, or register the key with one server and keep what it answers.

        Raises GatewayError and OSError; LoginError if the provider does not accept the user.
        """
        if isinstance(errand, Login):
            self._token, self._answers = "", ()
            self._token = await self.token_of(errand)
            return
        given = {
            "token": self._token,
            "key": errand.public_key,
            "address": str(errand.address),
            "authority": self._authority,
        }
        answer = await self._said(errand, given)
        self._answers = (*self._answers, answer)
        await self._aside.run(lambda: self._keep_answers(errand), STORE_TIME)

    async def token_of(self, errand: Login) -> str:
        """Return the token for a user. Raises GatewayError and OSError, LoginError if refused."""
        given = {"user": errand.user.reveal(), "password": errand.password.reveal()}
        return await self._said(errand, given)

    async def _said(self, errand: Login | KeyRequest, given: dict[str, str]) -> str:
        """Return what the process makes of the answer: one line. Raises GatewayError, OSError."""
        with file_of(json.dumps(given)) as secrets:
            async with self._answer(_command(errand), errand.host, {SECRETS: secrets}) as result:
                line = os.pread(result, LARGEST_ANSWER, 0).decode(errors="replace")
        if not line.isprintable():
            raise NetworkError("an answer that is not one line", errand.host)
        return line

    def _keep_answers(self, errand: KeyRequest) -> None:
        """Replace the file of what is registered. Raises MissingError."""
        private = errand.private_key
        head = {
            "provider": errand.provider,
            "made": int(time.time()),
            "public_key": errand.public_key,
            "private_key": private.reveal() if private else "",
            "token": self._token,
        }
        name = registrations_name(errand.provider)
        with file_of("\n".join((json.dumps(head), *self._answers, ""))) as file:
            try:
                keep_copy(self._places, name, file, is_secret=True)
            except OSError as err:
                raise MissingError(
                    f"the registration cannot be kept ({err.filename}: {err.strerror})",
                    "mount a volume that the gateway can write to at /config",
                ) from err


@contextmanager
def file_of(text: str) -> Iterator[int]:
    """Yield the descriptor of a file in memory with `text`, at its beginning."""
    descriptor = os.memfd_create("secrets", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _command(errand: Login | KeyRequest) -> tuple[str, ...]:
    """Return the command of the process."""
    kind = "login" if isinstance(errand, Login) else "key"
    place = (kind, errand.provider, errand.host, errand.target, str(errand.port))
    return command_of(_MODULE, *place)
