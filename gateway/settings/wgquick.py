"""Parser of wg-quick files: text in, sections with checked key names and line numbers out.

The grammar is that of wg(8) and wg-quick(8): `[Interface]` once, any number of `[Peer]`, `Key =
Value`, `#` starts a comment, names are not case-sensitive. `quickfiles` reads the values. A line
that cannot be read is reported by its number and never repeated: it may hold a key. Other programs
read `;` as a comment and drop quotes around a value, so that is done here too.
"""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from difflib import get_close_matches
from typing import Final

from gateway.model.frozen import frozen
from gateway.settings.values import unquoted


@frozen
class Entry:
    """One `Key = Value`: the name as wg-quick(8) spells it, and its line."""

    name: str
    value: str
    line: int


@frozen
class Section:
    """One `[Interface]` or `[Peer]` with its entries in order; `line` is that of its head."""

    line: int
    entries: tuple[Entry, ...] = ()

    def all(self, name: str) -> tuple[Entry, ...]:
        """Return every entry called `name`."""
        return tuple(entry for entry in self.entries if entry.name == name)


@frozen
class QuickFile:
    """A file that could be read; `faults` are (line, message) of what could not.

    `remarks` are those of what has no effect.
    """

    interface: Section
    peers: tuple[Section, ...]
    faults: tuple[tuple[int, str], ...] = ()
    remarks: tuple[tuple[int, str], ...] = ()


INTERFACE_KEYS: Final = (
    "PrivateKey", "Address", "DNS", "MTU", "ListenPort", "FwMark",
    "Table", "SaveConfig", "PreUp", "PostUp", "PreDown", "PostDown",
)  # fmt: skip
PEER_KEYS: Final = ("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive")

_AMNEZIA: Final = frozenset(
    ("jc", "jmin", "jmax", "itime", "j1", "j2", "j3", "s1", "s2", "s3", "s4",
     "h1", "h2", "h3", "h4", "i1", "i2", "i3", "i4", "i5")
)  # fmt: skip
_OF_APPS: Final = frozenset(
    ("excludedapplications", "includedapplications", "httpproxy", "blockdns", "blockinternet",
     "excludedips", "obfuscatetcp", "obfuscatekey")
)  # fmt: skip
"""Keys that phone apps and TunSafe add."""
_OF_WARP: Final = "reserved"
_COMMENTS: Final = (";", "//")
_HARMLESS: Final = re.compile(r"[A-Za-z]{1,24}")
_HEADS: Final = {"[interface]": INTERFACE_KEYS, "[peer]": PEER_KEYS}


def decode(raw: bytes) -> str:
    """Return the text of a file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises ValueError for anything else.
    """
    encoding = "utf-16" if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text; save it as plain text") from None


def parse(text: str) -> QuickFile:
    """Read the text of a wg-quick file; faults are collected, never raised."""
    sections: list[tuple[str, int, list[Entry]]] = []
    faults: list[tuple[int, str]] = []
    remarks: list[tuple[int, str]] = []
    for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        line = raw.partition("#")[0].strip().strip("\0")
        if line.startswith("["):
            head = line.lower()
            if head not in _HEADS:
                faults.append((number, "is an unknown section; use [Interface] or [Peer]"))
            sections.append((head, number, []))
        elif line and not line.startswith(_COMMENTS):
            _read_entry(line, number, sections, (faults, remarks))
    interfaces = [one for one in sections if one[0] == "[interface]"]
    if not interfaces:
        faults.insert(0, (1, "is missing: a wg-quick file begins with [Interface]"))
    merged = Section(
        interfaces[0][1] if interfaces else 1,
        tuple(entry for _, _, found in interfaces for entry in found),
    )
    peers = tuple(Section(at, tuple(found)) for head, at, found in sections if head == "[peer]")
    return QuickFile(merged, peers, tuple(faults), tuple(remarks))


def _read_entry(
    line: str,
    number: int,
    sections: list[tuple[str, int, list[Entry]]],
    both: tuple[list[tuple[int, str]], list[tuple[int, str]]],
) -> None:
    """Add an entry to the last section, or to the faults or the remarks why it is not one."""
    faults, remarks = both
    name, equals, value = (part.strip() for part in line.partition("="))
    if not equals:
        faults.append((number, "is not of the form Key = Value"))
    elif not sections:
        faults.append((number, "comes before the first section; begin with [Interface]"))
    elif sections[-1][0] in _HEADS:
        known = {key.lower(): key for key in _HEADS[sections[-1][0]]}
        if name.lower() in known:
            bare = unquoted(value)
            sections[-1][2].append(Entry(known[name.lower()], bare, number))
            if bare != value:
                remarks.append((number, "the quotes around the value are ignored"))
        elif fault := _mistaken(name, sections[-1][0]):
            faults.append((number, fault))
        else:
            remarks.append((number, _unknown(name)))


def _mistaken(written: str, head: str) -> str | None:
    """Return why a key is refused, None if it is none that could be meant here."""
    name = written.lower()
    if name in _AMNEZIA:
        return f"{name} belongs to AmneziaWG, which is not supported; use a plain WireGuard server"
    for other, keys in _HEADS.items():
        if other != head and name in map(str.lower, keys):
            return f"{name} belongs in {'[Interface]' if head == '[peer]' else '[Peer]'}"
    if name in (_OF_WARP, *_OF_APPS):
        return None
    known = {key.lower(): key for key in (*INTERFACE_KEYS, *PEER_KEYS)}
    near = get_close_matches(name, known, n=1)
    return f"{_named(written)}; did you mean {known[near[0]]}?" if near else None


def _unknown(written: str) -> str:
    """Return what an unknown key means for the tunnel, which is nothing."""
    name = written.lower()
    if name == _OF_WARP:
        return (
            f"{_named(written)}, which belongs to Cloudflare's WARP: its bytes are not sent, and "
            "some servers of theirs answer only with them"
        )
    if name in _OF_APPS:
        return f"{_named(written)}, which belongs to an app and has no effect here"
    return f"{_named(written)}, which has no effect; correct or remove it"


def _named(written: str) -> str:
    """Repeat the name of a key only if it cannot be part of a secret."""
    return f"has an unknown key {written}" if _HARMLESS.fullmatch(written) else "has an unknown key"
