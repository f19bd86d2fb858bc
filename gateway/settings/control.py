"""The control API: parsers of its variables, and of the roles that gluetun has too."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from gateway.model import Secret
from gateway.model.control import Auth, Role
from gateway.settings.values import safe_quote, safe_text, unquoted

_FIELDS: Final = ("name", "routes", "auth", "apikey", "username", "password")

LONGEST_CREDENTIAL: Final = 512
LONGEST_NAME: Final = 60
SHORTEST_KEY: Final = 16
"""Characters of a key or password that cannot be guessed through the network."""


def path(text: str) -> PurePosixPath:
    """Read the absolute path of a file in the container."""
    found = PurePosixPath(text)
    if not found.is_absolute():
        raise ValueError(f"must be an absolute path, got {safe_quote(text)}")
    return found


def key(text: str) -> Secret:
    """Read a key that clients send in a header."""
    fault = _fault_of_key(text)
    if fault is None and len(text) < SHORTEST_KEY:
        fault = f"has fewer than {SHORTEST_KEY} characters; make one with: openssl rand -hex 24"
    if fault:
        raise ValueError(fault)
    return Secret(text)


def default_role(text: str) -> Secret | None:
    """Read a role in JSON, which is kept as it is, without quotes around it; `{}` is none."""
    bare = unquoted(text)
    return Secret(bare) if default_role_of(bare) else None


def default_role_of(text: str) -> Role | None:
    """Return the role in JSON, without its routes. Raises ValueError."""
    given = _object(text)
    return role_of({**given, "name": "default"}) if given.get("auth") else None


def _object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ValueError(  # noqa: TRY004 - a parser raises nothing else
            'is not a JSON object; write {"auth":"apikey","apikey":"..."}'
        )
    return given


def _fault_of_key(text: str) -> str | None:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        return "has to be of printable ASCII characters without spaces: a header carries it"
    if len(text) > LONGEST_CREDENTIAL:
        return f"has more than {LONGEST_CREDENTIAL} characters"
    return None


def role_of(given: Mapping[str, Any]) -> Role:
    """Return the role that `given` describes, without its routes. Raises ValueError."""
    unknown = sorted(set(given) - set(_FIELDS))
    if unknown:
        raise ValueError(f"{safe_quote(unknown[0])} is unknown; write {', '.join(_FIELDS)}")
    texts = {name: given.get(name, "") for name in _FIELDS if name != "routes"}
    if not all(isinstance(it, str) for it in texts.values()):
        raise ValueError(f"{', '.join(texts)} have to be texts, in quotes")
    auth = texts["auth"]
    if auth not in {*Auth}:
        raise ValueError(f'auth is {safe_quote(auth)}; write "apikey", "basic" or "none"')
    name = safe_text(texts["name"])[:LONGEST_NAME] or "unnamed"
    return Role(name, Auth(auth), frozenset(), _credential(Auth(auth), texts))


def _credential(auth: Auth, texts: Mapping[str, str]) -> Secret | None:
    if auth is Auth.NONE:
        return None
    if auth is Auth.KEY:
        if fault := _fault_of_key(texts["apikey"]):
            raise ValueError(f"apikey {fault}")
        return Secret(texts["apikey"])
    user, password = texts["username"], texts["password"]
    if not user or not password or ":" in user or not (user + password).isprintable():
        raise ValueError("username and password have to be printable, and username without a colon")
    if len(user) + len(password) > LONGEST_CREDENTIAL:
        raise ValueError(f"username and password have more than {LONGEST_CREDENTIAL} characters")
    return Secret(f"{user}:{password}")
