"""The mark that a listed rule of nft matches or sets. Pure; see `listing` for the blocks."""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise


def mark_of(rules: Iterable[str], why: str) -> int | None:
    """Return the mark in the first of `rules` with the comment `why`, None if there is none."""
    for rule in rules:
        with suppress(ValueError):  # not one of ours: an open quote, or a mark that is not a number
            words = shlex.split(rule)
            if words[-2:] == ["comment", why] and (mark := _mark_in(words)) is not None:
                return mark
    return None


def _mark_in(words: list[str]) -> int | None:
    """Return the number after `meta mark` or `meta mark set`. Raises ValueError."""
    for at, pair in enumerate(pairwise(words)):
        if pair == ("meta", "mark"):
            rest = words[at + 2 :]
            return int(next(iter(rest[1:] if rest[:1] == ["set"] else rest), ""), 0)
    return None
