"""Lists of blocked names that are fetched: their URLs, their copies, and gluetun's switches."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Final

from gateway.errors import is_shortage
from gateway.model.name_server import BlockFile, BlockList, NameServer
from gateway.providers.kept import BLOCK_PLACES, blocked_name
from gateway.settings import fields, urls, values
from gateway.settings.files import inside
from gateway.settings.values import safe_quote, unquoted

MOST_LISTS: Final = 8
LONGEST_URL: Final = 500
VARIABLE: Final = "DNS_BLOCK_URLS"
LISTED: Final = "not needed: what is blocked is in the lists of DNS_BLOCK_URLS"
"""The notice for a switch of gluetun's where there are lists."""

_URL: Final = re.compile(r"https://[^\s`]+")


def block_urls(text: str) -> tuple[BlockList, ...]:
    """Read a list of URLs."""
    found = tuple(dict.fromkeys(values.comma_list(text, _block_url)))
    if len(found) > MOST_LISTS:
        raise ValueError(f"has more than {MOST_LISTS} lists; write fewer")
    return found


def period(text: str) -> int:
    """Read how often they are fetched, in seconds; `off` and 0 mean once."""
    return fields.period(text) or 0


def _block_url(text: str) -> BlockList:
    if "@" in text.partition("?")[0]:  # before anything is quoted
        raise ValueError("has a user or a password in it; write https://host/path")
    said = safe_quote(text)
    url, found, port = urls.parts_of(text, LONGEST_URL, "write https://host/path")
    host = found.rstrip(".")
    if url.scheme == "http":
        raise ValueError(
            f"{said} is not encrypted, so everyone between the VPN server and that host could "
            "change the list; write https://"
        )
    if url.scheme != "https" or not urls.is_name(host):
        raise ValueError(f"{said} does not begin with https:// and the name of a host")
    if "#" in text:
        raise ValueError(f"{said} has a part after #; write https://host/path")
    query = f"?{url.query}" if url.query else ""
    return BlockList("", host, (url.path or "/") + query, port or BlockList.port)


def with_copies(server: NameServer | None, root: Path) -> NameServer | None:
    """Return `server` with the last copy of each of its lists. Raises OSError for a shortage."""
    if server is None or not server.lists:
        return server
    return replace(server, lists=tuple(replace(it, kept=_kept(it, root)) for it in server.lists))


def _kept(listed: BlockList, root: Path) -> BlockFile | None:
    """Return the newest copy; one that cannot be looked at counts as none, and is fetched."""
    found: list[BlockFile] = []
    for place in BLOCK_PLACES:
        path = PurePosixPath(place) / blocked_name(listed)
        try:
            status = inside(root, path).stat()
        except OSError as err:
            if is_shortage(err):
                raise
            continue
        if S_ISREG(status.st_mode):
            found.append(BlockFile(str(path), status.st_size, status.st_mtime_ns))
    return max(found, key=lambda it: it.changed, default=None)


def answer(line: str, name: str, environ: Mapping[str, str], switches: Mapping[str, str]) -> str:
    """Return the notice for the switch `name`, of which `line` is the one if it is the only one on.

    `switches` are all of them, each with its notice, which has the URL of its list.
    """
    if _text(environ, VARIABLE):
        return LISTED
    others = [it for each, it in switches.items() if each != name and _text(environ, each) in _ON]
    if _text(environ, name) not in _ON or not others:
        return line
    urls = ",".join(dict.fromkeys(_urls((line, *others))))
    return _URL.sub(lambda _: urls, line, count=1)


_ON: Final = frozenset({"on", "true", "yes", "1"})


def _urls(lines: Iterable[str]) -> list[str]:
    return [found for line in lines for found in _URL.findall(line)]


def _text(environ: Mapping[str, str], name: str) -> str:
    return unquoted(environ.get(name, "").strip()).lower()
