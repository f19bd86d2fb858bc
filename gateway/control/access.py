"""Who may do what: the roles of the configuration, compared with what a request shows.

The process has no credential of the configuration, only a digest of each under a key that is random
for each run. What a request shows is compared with each of them, which takes the same time for all
that could be shown.
"""

import hmac
from base64 import b64decode
from binascii import Error
from collections.abc import Sequence
from enum import Enum, auto

from gateway.model.frozen import frozen

KEY_HEADER, AUTHORIZATION = b"x-api-key", b"authorization"
LONGEST_CREDENTIAL = 1024

Headers = Sequence[tuple[bytes, bytes]]


@frozen
class Holder:
    """A role: `digest` is that of its credential, empty for none; `kind` how it is shown."""

    name: str
    kind: str
    routes: frozenset[str]
    digest: bytes


class Verdict(Enum):
    """What a request may do."""

    ALLOWED = auto()
    UNKNOWN = auto()
    """It shows no credential that is known."""

    FORBIDDEN = auto()
    """It shows one that is for other routes."""


@frozen
class Ruling:
    """A verdict, the name of the role, and whether the request has shown that role's credential."""

    verdict: Verdict
    role: str = ""
    has_shown: bool = False


UNKNOWN = Ruling(Verdict.UNKNOWN)


@frozen
class Shown:
    """The credential of a request; `kind` is as in `Holder`."""

    kind: str
    credential: bytes


class Unreadable(ValueError):  # noqa: N818 - it is what a header is
    """The headers of a request show a credential in a way that is not to be understood."""


def digest_of(key: bytes, kind: str, credential: bytes) -> bytes:
    """Return the digest of a credential under `key`."""
    return hmac.digest(key, kind.encode() + b"\0" + credential, "sha256")


def shown_by(headers: Headers) -> Shown | None:
    """Return the credential that a request shows, None without one. Raises Unreadable."""
    keys = [value for name, value in headers if name == KEY_HEADER]
    others = [value for name, value in headers if name == AUTHORIZATION]
    if len(keys) + len(others) > 1:
        raise Unreadable("more than one credential; send X-API-Key or Authorization, once")
    if keys:
        return Shown("apikey", _limited(keys[0].strip()))
    return _authorization(others[0]) if others else None


def _authorization(value: bytes) -> Shown:
    scheme, _, rest = value.strip().partition(b" ")
    credential = _limited(rest.strip())
    if scheme.lower() == b"bearer":
        return Shown("apikey", credential)
    if scheme.lower() == b"basic":
        try:
            return Shown("basic", b64decode(credential, validate=True))
        except (Error, ValueError):
            raise Unreadable("Authorization: Basic is not base64 (RFC 7617)") from None
    raise Unreadable("Authorization is neither Basic nor Bearer")


def _limited(credential: bytes) -> bytes:
    if not credential or len(credential) > LONGEST_CREDENTIAL:
        raise Unreadable(f"a credential has 1 to {LONGEST_CREDENTIAL} characters")
    return credential


class Gate:
    """Decides with `holders`, whose digests were made with `key`."""

    def __init__(self, key: bytes, holders: Sequence[Holder]) -> None:
        self._key = key
        self._holders = holders

    def ruling(self, route: str, shown: Shown | None) -> Ruling:
        """Return what a request for `route` may do; every digest is compared."""
        presented = digest_of(self._key, shown.kind, shown.credential) if shown else b""
        known, allowed = "", ""
        for holder in self._holders:
            fits = bool(shown) and bool(holder.digest)
            is_same = hmac.compare_digest(holder.digest, presented)
            if fits and is_same:
                known = known or holder.name
                allowed = allowed or (holder.name if route in holder.routes else "")
        if allowed:
            return Ruling(Verdict.ALLOWED, allowed, has_shown=True)
        free = [it.name for it in self._holders if not it.digest and route in it.routes]
        if free and (known or shown is None):
            return Ruling(Verdict.ALLOWED, free[0], has_shown=bool(known))
        return Ruling(Verdict.FORBIDDEN, known, has_shown=True) if known else UNKNOWN

    def challenge(self, route: str) -> str:
        """Return what a client is asked for, as a value of WWW-Authenticate (RFC 9110, 11.6.1)."""
        kinds = {it.kind for it in self._holders if it.digest and route in it.routes}
        basic = kinds == {"basic"}
        return 'Basic realm="control", charset="UTF-8"' if basic else 'Bearer realm="control"'
