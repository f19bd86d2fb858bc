"""What the report does not show: keys, passwords and user names, wherever they turn up.

The parts print no secret by themselves. This is the second barrier: the report is made to be
published, and people paste passwords into any variable.
"""

import re
import threading
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from gateway.commands.asking import visible
from gateway.settings.sources import SECRETFILE, SECRETS_FOLDER
from gateway.settings.values import unquoted, without_keys
from gateway.system.applied import without_secret_marks

NAMES: Final = re.compile(
    r"KEY|PASS|USER|SECRET|TOKEN|AUTH|LOGIN|CREDENTIAL|COMMAND", re.IGNORECASE
)
"""What the names of variables and files have in them whose contents are never shown."""
PUBLIC: Final = re.compile(r"PUBLIC", re.IGNORECASE)

KEY: Final = re.compile(
    r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{43}=|[0-9a-fA-F]{64})(?![A-Za-z0-9+/=])"
)
"""A WireGuard key in base64 or in hexadecimal."""
IN_ADDRESS: Final = re.compile(r"(?<=://)\S+@")
"""User name and password in a URL (RFC 3986), also one that should have been escaped."""

IN_FILE: Final = re.compile(
    r"(?:KEY|PASS|USER|SECRET|TOKEN|AUTH)\w*[\"']?\s*[:=]\s*[\"']([^\"'\n]+)", re.IGNORECASE
)
"""A text of such a name in TOML or JSON, as in the roles of the control API."""
WORDS: Final = frozenset({"apikey", "basic", "none"})
"""Texts of these names that are not secret."""
ROLES: Final = ("HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH", "/gluetun/auth/config.toml")
"""The variable with the file of these roles, and where the file is without it."""

SHORTEST: Final = 4
LONG: Final = 8
"""Characters: shorter secrets are not looked for, and long ones also inside of other words."""
FILE_TIME: Final = 2.0
"""Seconds that reading all secret files may take."""
LARGEST_FILE: Final = 1 << 16
HIDDEN: Final = "[hidden]"


class Hiding:
    """Takes secrets out of lines: everything with the form of a key, and the `known` texts."""

    def __init__(self, known: Iterable[str]) -> None:
        found = sorted({text for text in known if len(text) >= SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(_searched, found)) or r"(?!)")

    def line(self, text: str) -> str:
        """Return a line without secrets and control characters.

        A key becomes a label that is the same for equal keys: the first 8 digits of the SHA-256 of
        its 32 random bytes, from which they do not follow.
        """
        shown = KEY.sub(lambda found: label(found[0]), text.replace("\t", "  "))
        shown = without_keys(self._known.sub(HIDDEN, shown))
        return visible(without_secret_marks(IN_ADDRESS.sub(f"{HIDDEN}@", shown)))


def _searched(text: str) -> str:
    exact = re.escape(text)
    return exact if len(text) >= LONG else rf"(?<!\w){exact}(?!\w)"


def label(key: str) -> str:
    """Return what is shown of a key."""
    raw = b64decode(key) if key.endswith("=") else bytes.fromhex(key)
    return f"[key {sha256(raw).hexdigest()[:8]}]"


def known_secrets(environ: Mapping[str, str], limit: float = FILE_TIME) -> set[str]:
    """Return the texts that a configuration keeps secret, as far as their names show it.

    Of files that do not answer within `limit` seconds none is known: no part can show them either.
    """
    found: list[str] = []
    named = {name: text for name, text in environ.items() if NAMES.search(name)}
    variable, usual = ROLES
    roles = unquoted(named.get(variable, usual).strip())
    files = {name for name in named if name.endswith(SECRETFILE) and named[name].startswith("/")}
    for name in named.keys() - files - {variable}:
        if not PUBLIC.search(name):
            found += _parts(named[name])

    def read() -> None:
        listed = [path for path in _folder() if NAMES.search(path.name)]
        for path in (*(Path(named[name]) for name in files), *listed):
            found.extend(_parts(_content(path)))
        found.extend(IN_FILE.findall(_content(Path(roles))))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(limit)
    return set(found) - WORDS


def _folder() -> list[Path]:
    try:
        return [*Path(SECRETS_FOLDER).iterdir()]
    except OSError:
        return []


def _content(path: Path) -> str:
    try:
        if not path.is_file():  # a pipe would never end
            return ""
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_FILE)
    except OSError:
        return ""


def _parts(text: str) -> Iterator[str]:
    """Yield the text, its lines, and its long words: each of them may be quoted alone."""
    yield text.strip()
    yield unquoted(text.strip())
    yield from IN_FILE.findall(text)
    yield from map(str.strip, text.splitlines())
    yield from (word for word in text.split() if len(word) >= LONG)
