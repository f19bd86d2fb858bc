"""Talks to a provider's login or to one of its servers, in a process of its own without rights.

As `list_process`, and for the same reasons. A third descriptor has the secrets of the request, as
JSON. The result is the token, or what the server has answered in the kept form, one line each.
"""

import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from gateway import __version__, providers
from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.providers import catalog
from gateway.providers.lists import BadListError, decoded
from gateway.providers.registrations import dumped
from gateway.providers.server import BadAnswerError, KeyService
from gateway.services.fetching.list_process import MOST_MEMORY, give_up_rights
from gateway.services.fetching.lists import FAILED, REFUSED, RESULT, SOCKET
from gateway.services.fetching.registrar import SECRETS
from gateway.system import https

NOT_ACCEPTED = {401, 403}
LARGEST = 64 << 10
"""Octets of an answer; one has less than a thousand."""


def main() -> None:
    """Be the process, and end it."""
    code = FAILED
    try:
        kind, name, host, target, port = sys.argv[1:6]
        service = _service(name)
        with open(SECRETS, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            given: dict[str, str] = json.load(file)
        place = Errand(name, host, target, int(port))
        done = _token if kind == "login" else _registered
        code, result = done(service, place, given)
    except MemoryError:
        result = f"it takes more than {MOST_MEMORY >> 20} MiB of memory"
    except (NetworkError, BadListError, BadAnswerError) as err:
        result = str(err)
    except Exception as err:  # noqa: BLE001 - what an answer can do to a library is not foreseen
        result = f"the answer cannot be read ({type(err).__name__})"
    try:
        with open(RESULT, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor
            file.write(result)
    finally:
        os._exit(code)


def _service(name: str) -> KeyService:
    provider = catalog.find(name)
    if provider is None or provider.keys is None:
        raise NetworkError("unknown provider", name)
    return provider.keys


def _token(service: KeyService, place: Errand, given: dict[str, str]) -> tuple[int, str]:
    """Return 0 and a token, or REFUSED and what to do. Raises NetworkError and BadListError."""
    context = https.trusted()  # the files may be readable for root only
    give_up_rights()
    form = service.form(given["user"], given["password"])
    request = https.Request(place, f"portcullis/{__version__}", LARGEST, form=form)
    try:
        raw = https.get(socket.socket(fileno=SOCKET), request, context)
    except https.StatusError as err:
        if err.status not in NOT_ACCEPTED:
            raise
        return REFUSED, (
            f"OPENVPN_USER and OPENVPN_PASSWORD are not accepted (HTTP {err.status}): write those "
            "of your account, then run `gateway reload` or start again; the login"
        )
    return 0, service.read_token(decoded(raw, LARGEST))


def _registered(service: KeyService, place: Errand, given: dict[str, str]) -> tuple[int, str]:
    """Return 0 and what the server answers. Raises NetworkError and BadListError."""
    own = Path(providers.__file__).with_name(service.authority)
    context = https.trusted_alone(Path(given["authority"] or own))
    give_up_rights()
    query = service.query(given["token"], given["key"])
    request = https.Request(place, f"portcullis/{__version__}", LARGEST, query=query)
    raw = https.get(socket.socket(fileno=SOCKET), request, context)
    answer = service.read_answer(decoded(raw, LARGEST), place.host, ip_address(given["address"]))
    return 0, dumped(answer)
