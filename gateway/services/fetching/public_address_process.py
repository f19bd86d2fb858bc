"""Asks a service for the public address, and hands over what is taken of its answer.

As `list_process`, and for the same reasons, in a process of its own without rights. A third
descriptor has the token of the request, as JSON.
"""

import sys
from urllib.parse import urlencode

from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.model.public_ip import ApiKind
from gateway.policy.public_address import in_lines, taken
from gateway.providers.countries import NAMES
from gateway.providers.lists import decoded
from gateway.services.fetching.process_frame import (
    answer_to,
    give_up_rights,
    hand_over,
    secrets_given,
)
from gateway.system import https

LARGEST = 16 << 10
"""Octets of an answer; one has less than a thousand."""


def main() -> None:
    """Be the process, and end it."""
    kind, host, target, port = sys.argv[1:5]
    hand_over(lambda: _asked(ApiKind(kind), Errand("", host, target, int(port))))


def _asked(kind: ApiKind, place: Errand) -> bytes:
    """Return what is taken of the answer. Raises NetworkError and BadListError."""
    token: str = secrets_given()["token"]
    context = https.trusted()  # the files may be readable for root only
    give_up_rights()
    in_query = token if kind is ApiKind.IP2LOCATION else ""
    in_head = "" if in_query else token
    query = urlencode({"key": in_query}) if in_query else ""
    request = https.Request(place, LARGEST, query=query, bearer=in_head)
    answer = decoded(answer_to(request, context), LARGEST)
    try:
        return in_lines(taken(kind, answer.text, NAMES)).encode()
    except ValueError as err:
        raise NetworkError(str(err), place.host) from err
