"""Talks to a provider's login or to one of its servers, in a process of its own without rights.

As `list_process`, and for the same reasons. A third descriptor has the secrets of the request, as
JSON. The result is the token, or what the server has answered in the kept form, one line each.
"""

import sys
from ipaddress import ip_address
from pathlib import Path

from gateway import providers
from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.providers import catalog
from gateway.providers.lists import decoded
from gateway.providers.registrations import dumped
from gateway.providers.server import KeyService
from gateway.services.fetching.process_frame import (
    answer_to,
    give_up_rights,
    hand_over_text,
    secrets_given,
)
from gateway.system import https

LARGEST = 64 << 10
"""Octets of an answer; one has less than a thousand."""
REFUSAL = (
    "OPENVPN_USER and OPENVPN_PASSWORD are not accepted (HTTP {status}): write those of your "
    "account, then run `gateway reload` or start again; the login"
)


def main() -> None:
    """Be the process, and end it."""
    kind, name, host, target, port = sys.argv[1:6]
    done = _token if kind == "login" else _registered
    hand_over_text(lambda: done(_service(name), Errand(name, host, target, int(port))))


def _service(name: str) -> KeyService:
    provider = catalog.find(name)
    if provider is None or provider.keys is None:
        raise NetworkError("unknown provider", name)
    return provider.keys


def _token(service: KeyService, place: Errand) -> str:
    """Return a token. Raises RefusedError with what to do, NetworkError and BadListError."""
    given = secrets_given()
    context = https.trusted()  # the files may be readable for root only
    give_up_rights()
    form = service.form(given["user"], given["password"])
    raw = answer_to(https.Request(place, LARGEST, form=form), context, refusal=REFUSAL)
    return service.read_token(decoded(raw, LARGEST))


def _registered(service: KeyService, place: Errand) -> str:
    """Return what the server answers. Raises NetworkError, BadListError and BadAnswerError."""
    given = secrets_given()
    own = Path(providers.__file__).with_name(service.authority)
    context = https.trusted_alone(Path(given["authority"] or own))
    give_up_rights()
    query = service.query(given["token"], given["key"])
    raw = answer_to(https.Request(place, LARGEST, query=query), context)
    answer = service.read_answer(decoded(raw, LARGEST), place.host, ip_address(given["address"]))
    return dumped(answer)
