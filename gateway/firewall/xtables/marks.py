"""The mark that a rule of the legacy tables matches or sets. Pure; see `entry` for the layout."""

import struct
from collections.abc import Iterable

from gateway.firewall.xtables.entry import Entry

MARK = struct.Struct("=I")
"""The first field of struct xt_mark_mtinfo1 and xt_mark_tginfo2 (linux/netfilter/xt_mark.h)."""


def mark_of(entries: Iterable[Entry], why: str) -> int | None:
    """Return the mark in the first of `entries` with the comment `why`, None if there is none."""
    for entry in entries:
        parameters = {part.name: part.parameters for part in entry.parts}
        comment = parameters.get("comment", b"").partition(b"\0")[0].decode(errors="replace")
        mark = parameters.get("mark") or parameters.get("MARK")
        if comment == why and mark and len(mark) >= MARK.size:
            number: int = MARK.unpack_from(mark)[0]
            return number
    return None
