"""Lists of blocked names: reads hosts files, RPZ zones and plain names, and writes one RPZ zone.

A list comes from anywhere, so nothing in it is taken as it is: a line gives a name that is a name
of the DNS, or nothing. In a response policy zone (draft-vixie-dnsop-dns-rpz) a name means itself
alone, as in a hosts file, and `*.name` those below it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MOST_NAMES = 300_000
"""Names in all lists: some 205 MB of unbound's memory, and four seconds of its start."""
LONGEST_LINE = 1024
"""Bytes of a line; a longer one is left out."""
MOST_WORDS = 2_000_000
"""Words of a list, and its lines: some four seconds on one processor, however short they are."""

ZONE = "blocked"
BLOCKED, EMPTY, PASSED = ".", "*.", "rpz-passthru."
"""What a rule answers: the name does not exist, it has no addresses, or what others answer."""

_LABEL = rb"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rb"(?=.{1,240}$)(?:\*\.)?" + _LABEL + rb"(?:\." + _LABEL + rb")*")
_NOWHERE = re.compile(rb"0\.0\.0\.0|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1?|(?:0:){7}[01]")
"""The addresses that a hosts file has for a blocked name."""
_OWN = frozenset(
    (
        b"localhost",
        b"localhost.localdomain",
        b"local",
        b"broadcasthost",
        b"ip6-localhost",
        b"0.0.0.0",
    )
)
"""Names of this host, with which hosts files begin."""
_TRIGGERS = (b".rpz-ip", b".rpz-client-ip", b".rpz-nsip", b".rpz-nsdname")
"""The ends of rules that are not about a name that is asked for."""


@dataclass
class Blocked:
    """The rules of some lists: an answer for each name, none for those in the domains `passed`.

    `taken` counts the rules of the lists, each time that one is there, and `ignored` lines without
    a use.
    """

    passed: frozenset[bytes] = frozenset()
    rules: dict[bytes, str] = field(default_factory=dict)
    taken: int = 0
    ignored: int = 0
    is_full: bool = False

    def __post_init__(self) -> None:
        """Note how many labels the domains have: a name of a list may have 120."""
        self._depths = {it.count(b".") + 1 for it in self.passed}

    def add(self, name: bytes, answer: str) -> bool:
        """Take a rule; the first one for a name counts. Return whether `name` can have one."""
        if not _NAME.fullmatch(name) or name in _OWN or name.endswith(_TRIGGERS):
            return False
        if self.passed and self._is_passed(name):
            return True
        if len(self.rules) >= MOST_NAMES:
            self.is_full = True
        else:
            self.rules.setdefault(name, answer)
            self.taken += 1
        return True

    def _is_passed(self, name: bytes) -> bool:
        labels = name.split(b".")
        return any(b".".join(labels[-depth:]) in self.passed for depth in self._depths)

    def read(self, lines: Iterable[bytes]) -> bool:
        """Take the rules of a list, until there are too many. A line ends with a line feed.

        Return False if the list has more than MOST_WORDS, after which the rest is left out.
        """
        reader = _Reader(self)
        for line in lines:
            if reader.seen > MOST_WORDS:
                return False
            if self.is_full:
                break
            self.ignored += not reader.take(line)
        return True

    def zone(self) -> Iterator[str]:
        """Yield the lines of an RPZ zone with the rules."""
        yield f"$ORIGIN {ZONE}.\n$TTL 60\n@ SOA localhost. localhost. 1 3600 3600 86400 60\n"
        yield "@ NS localhost.\n"
        for name in sorted(self.passed):  # a rule may be for all names of a domain above
            yield from (f"{it}{name.decode('ascii')} CNAME {PASSED}\n" for it in ("", "*."))
        yield from self.lines()

    def lines(self) -> Iterator[str]:
        """Yield the rules, each as the line of a zone."""
        for name, answer in self.rules.items():
            yield f"{name.decode('ascii')} CNAME {answer}\n"

    @property
    def fault(self) -> str:
        """Why this, read from one list alone, is not a list to be used; empty if it is.

        A page that asks for a login has lines with a name, too.
        """
        if self.is_full:
            return f"it has more than {MOST_NAMES} names"
        if not self.rules:
            return "no line of it blocks a name"
        if self.ignored > len(self.rules):
            return "most of its lines block no name"
        return ""


class _Reader:
    """Reads one list line by line; an RPZ zone has its name in `$ORIGIN` or before SOA."""

    def __init__(self, found: Blocked) -> None:
        self._found = found
        self._origin = b""
        self.seen = 0

    def take(self, line: bytes) -> bool:
        """Take one line; return whether it was of use or empty."""
        words = re.split(rb"[#;]", line, maxsplit=1)[0].lower().split()
        self.seen += 1 + len(words)
        if not words or len(line) > LONGEST_LINE:
            return not words
        if _NOWHERE.fullmatch(words[0]):
            found = [self._found.add(it.rstrip(b"."), BLOCKED) for it in words[1:]]
            return all(found)
        if len(words) == 1:
            return b"." in words[0] and self._found.add(words[0].strip(b"."), BLOCKED)
        return self._of_zone(words)

    def _of_zone(self, words: list[bytes]) -> bool:
        """Take a line of a zone file."""
        if words[0] == b"$origin":
            self._origin = words[1].strip(b".")
            return True
        if b"soa" in words[1:]:
            self._origin = self._origin or words[0].strip(b".@")
            return True
        return b"cname" in words[1:] and self._rule(words[0], words[-1])

    def _rule(self, name: bytes, target: bytes) -> bool:
        """Take a rule of an RPZ zone: its name is relative to the zone, or ends with it."""
        answer = target.decode("ascii", "replace")
        if answer not in {BLOCKED, EMPTY, PASSED}:
            return False
        if name.endswith(b"."):
            zone = b"." + self._origin + b"."
            if not self._origin or not name.endswith(zone):
                return False
            name = name.removesuffix(zone)
        return self._found.add(name, answer)
