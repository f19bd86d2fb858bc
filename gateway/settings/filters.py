"""Chooses among several wg-quick files, as the variables that choose a server ask for it.

A provider's files say in their names, or in comments, which server each one is for. A value matches
a file if its words come one after the other there, in either case and with any separators. Values
of one variable are alternatives; a file has to match every variable.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.model.frozen import frozen
from gateway.providers.catalog import CUSTOM
from gateway.settings.findings import Findings, joined
from gateway.settings.places import ConfFile
from gateway.settings.schema import SERVER_FILTERS, Settings
from gateway.settings.sourced import Sourced
from gateway.settings.values import safe_quote, safe_text

MOST_CANDIDATES: Final = 32
"""The most files that become candidates: reading one takes as long as looking at fifty."""

_COUNTRIES: Final = "server_countries"
_HOSTNAMES: Final = "server_hostnames"

_WORD: Final = re.compile(r"[^\W_]+")
_MOST_WORDS: Final = 16
_MOST_COMMENTS: Final = 10
"""What is looked at of one name or comment, and of one file."""

_CODE: Final = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})(?![A-Za-z])")
_CODE_IN_COMMENT: Final = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})(?=[#-])")
_FIRST_CODE: Final = re.compile(r"([a-z]{2})\d*(?![a-z0-9])")
"""A country's code in a file's name, in a comment, and in small letters where a name begins."""

_SHOWN: Final = 5


def words(text: str) -> list[str]:
    """Return the words of a text in small letters and without accents."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _WORD.findall(plain.casefold())[:_MOST_WORDS]


def _runs(text: str) -> Iterator[str]:
    """Yield all words that follow each other in a text, written as one."""
    found = words(text)
    for first in range(len(found)):
        for last in range(first, len(found)):
            yield "".join(found[first : last + 1])


@frozen
class _Described:
    """What a file says about its server: runs of words, and codes of countries."""

    runs: frozenset[str]
    codes: frozenset[str]


def _described(file: ConfFile, root: Path) -> _Described:
    path = PurePosixPath(file.name)
    names = [*path.parts[:-1], path.stem]
    comments = [
        line.partition("#")[2] for line in file.beginning(root).splitlines() if "#" in line
    ][:_MOST_COMMENTS]
    first = [found[1].upper() for name in names if (found := _FIRST_CODE.match(name))]
    codes = {code for name in names for code in _CODE.findall(name)}
    codes |= {code for comment in comments for code in _CODE_IN_COMMENT.findall(comment)}
    return _Described(
        frozenset(run for text in (*names, *comments) for run in _runs(text)),
        frozenset(codes).union(first),
    )


def wanted(
    root: Path, found: Sequence[ConfFile], values: Settings, findings: Findings
) -> Sequence[ConfFile]:
    """Return the files that match the variables, `MOST_CANDIDATES` at most, in their order.

    One file alone is used with any name. No match is a problem that names the nearest files.
    """
    given = _given(values)
    provider = values.vpn_service_provider
    if not found and provider and provider.value != CUSTOM:
        return found  # they choose from the provider's list
    if len(found) < 2:  # noqa: PLR2004 - one is not a choice
        reason = (
            f"because {found[0].path} is the only WireGuard file"
            if found
            else "because there are no WireGuard files to choose from"
        )
        for filter_ in given.values():
            findings.info(filter_.origin.where, f"is not used, {reason}")
        return found
    matching = _matching(root, found, given, findings) if given else found
    if len(matching) > MOST_CANDIDATES:
        findings.info(
            str(matching[0].path),
            f"is the first of {len(matching)} WireGuard files, of which {MOST_CANDIDATES} are "
            "used in the order of their names; SERVER_COUNTRIES, SERVER_CITIES, SERVER_NAMES and "
            "SERVER_HOSTNAMES choose others",
        )
    return matching[:MOST_CANDIDATES]


def _given(values: Settings) -> Mapping[str, Sourced[tuple[str, ...]]]:
    found: dict[str, Sourced[tuple[str, ...]] | None] = {
        field: getattr(values, field) for field in SERVER_FILTERS
    }
    return {field: one for field, one in found.items() if one}


def _matching(
    root: Path,
    found: Sequence[ConfFile],
    given: Mapping[str, Sourced[tuple[str, ...]]],
    findings: Findings,
) -> Sequence[ConfFile]:
    """Return the files that match all filters; report how many, or which filter has no match."""
    described = [_described(file, root) for file in found]
    left = set(range(len(found)))
    for field, filter_ in given.items():
        of_filter = _of_filter(field, filter_.value, described)
        if not of_filter:
            findings.problem(
                filter_.origin.where,
                f"{joined(map(safe_quote, filter_.value[:_SHOWN]))} is in none of "
                f"{len(found)} WireGuard files, in the name or a comment; the nearest are "
                f"{joined(_nearest(filter_.value, found))}",
            )
            return ()
        left &= of_filter
    names = joined(filter_.origin.where for filter_ in given.values())
    if not left:
        findings.problem(
            names, f"no WireGuard file of {len(found)} matches all of these; remove one of them"
        )
        return ()
    chosen = [file for number, file in enumerate(found) if number in left]
    findings.info(names, f"{len(chosen)} of {len(found)} WireGuard files match")
    return chosen


def _of_filter(field: str, values: Sequence[str], described: Sequence[_Described]) -> set[int]:
    """Return the numbers of the files that match one of the values."""
    runs: set[str] = set()
    codes: set[str] = set()
    for value in values:
        names, of_value = country(value) if field == _COUNTRIES else ((value,), ())
        runs.update("".join(words(name)) for name in names)
        codes.update(of_value)
        if field == _HOSTNAMES:
            runs.add("".join(words(value.partition(".")[0])))
    return {
        number
        for number, one in enumerate(described)
        if not runs.isdisjoint(one.runs) or not codes.isdisjoint(one.codes)
    }


def country(value: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names and codes of the country that a value names, the value alone if none."""
    from gateway.providers.countries import NAMES, OTHER_CODES  # noqa: PLC0415 - rarely needed

    code = _codes().get("".join(words(value)))
    if not code:
        return (value,), ()
    others = [other for other, own in OTHER_CODES.items() if own == code]
    return (value, *NAMES[code]), (code, *others)


@cache
def _codes() -> Mapping[str, str]:
    """Return the code of each country by its codes and names, each written as one word."""
    from gateway.providers.countries import NAMES, OTHER_CODES  # noqa: PLC0415 - rarely needed

    return {
        **{"".join(words(name)): code for code, names in NAMES.items() for name in names},
        **{code.lower(): code for code in NAMES},
        **{other.lower(): code for other, code in OTHER_CODES.items()},
    }


def _nearest(values: Sequence[str], found: Sequence[ConfFile]) -> list[str]:
    """Return the names of a few files that are spelled most like the values."""
    names = {PurePosixPath(file.name).stem.casefold(): file for file in found}
    near = [
        name
        for value in values[:_SHOWN]
        for name in get_close_matches(value.casefold(), names, n=_SHOWN, cutoff=0.0)
    ]
    return [safe_text(names[name].path.name) for name in dict.fromkeys(near)][:_SHOWN]
