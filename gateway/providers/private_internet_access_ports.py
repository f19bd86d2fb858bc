"""Ports of Private Internet Access: signed for an account, then bound to a tunnel again and again.

A server answers `getSignature` with a payload (base64 of JSON with `port` and `expires_at`) and its
signature, and `bindPort` with whether it forwards the port to who asks. A port that is not bound
every 15 minutes stops being forwarded; the signature lasts two months. So the provider's scripts
do it: https://github.com/pia-foss/manual-connections, port_forwarding.sh.
"""

import json
import re
from base64 import b64decode
from datetime import UTC, datetime
from urllib.parse import urlencode

from gateway.providers.entries import LAST_PORT, Entry
from gateway.providers.server import BadAnswerError, PortService, RefusedError, SignedPort

AUTHORITY = "private_internet_access.pem"
LONGEST_PAYLOAD, LONGEST_SIGNATURE = 2048, 512
"""Characters; those of 2026 have some 300 and 88."""
FIRST_PORT = 1024
"""A smaller port would be that of a service of this machine."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z", re.ASCII)


def _sign_query(token: str) -> str:
    return urlencode({"token": token})


def _bind_query(signed: SignedPort) -> str:
    return urlencode({"payload": signed.payload, "signature": signed.signature})


def _read_bound(document: Entry) -> None:
    _check(document, "the server refuses the port")


def _read_signed(document: Entry) -> SignedPort:
    _check(document, "the server signs no port for this account")
    payload = document.long_text("payload", LONGEST_PAYLOAD)
    return _read_payload(payload, document.long_text("signature", LONGEST_SIGNATURE))


def _check(document: Entry, refusal: str) -> None:
    """Raise RefusedError for another status than OK, BadAnswerError without any."""
    status = document.text("status")
    if not status:
        raise BadAnswerError("the server's answer is not in the known form")
    if status != "OK":
        raise RefusedError(refusal)


def _read_payload(payload: str, signature: str) -> SignedPort:
    """Return the port of `payload`. Raises BadAnswerError."""
    unknown = BadAnswerError("the signed port is not in the known form")
    lengths = len(payload) <= LONGEST_PAYLOAD, len(signature) <= LONGEST_SIGNATURE
    if not all(lengths) or not all(map(_BASE64.fullmatch, (payload, signature))):
        raise unknown
    try:
        document = Entry(json.loads(b64decode(payload, altchars=b"-_", validate=True)))
    except (ValueError, RecursionError):
        raise unknown from None
    port, moment = document.number("port"), _MOMENT.fullmatch(document.text("expires_at"))
    if port is None or not FIRST_PORT <= port <= LAST_PORT or moment is None:
        raise unknown
    try:
        expires = datetime.fromisoformat(moment[1]).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise unknown from None
    return SignedPort(port, int(expires), payload, signature)


PORTS = PortService(
    port=19999,
    authority=AUTHORITY,
    sign_target="/getSignature",
    bind_target="/bindPort",
    sign_query=_sign_query,
    bind_query=_bind_query,
    read_signed=_read_signed,
    read_bound=_read_bound,
    read_payload=_read_payload,
)
