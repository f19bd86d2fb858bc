"""One line of a legacy table as bytes: made by the library, or by hand for the many of a tree."""

import re
from functools import lru_cache

from gateway.firewall.xtables.chains import Line
from gateway.firewall.xtables.entry import EXTENSION, Entry, entry_of, leading_to
from gateway.firewall.xtables.library import LIBRARY_RULE, exactly, filled, find_all_options
from gateway.firewall.xtables.packing import pack
from gateway.firewall.xtables.render import (
    PROTOCOL_NUMBERS,
    Extension,
    matches_of,
    network_of,
    render_line,
    target_of,
)
from gateway.model.frozen import frozen
from gateway.policy.rules import Family

_MARK = re.compile(r"\b0x[0-9a-f]+(/0x[0-9a-f]+)?")

SIZES: dict[tuple[str, int], int] = {}
"""How many bytes of each extension's parameters are the user's, according to the library."""


@frozen
class Built:
    """A line ready to be appended: the bytes for libiptc, and what the kernel should then hold."""

    chain: str
    line: Line
    family: Family
    blob: bytes
    entry: Entry

    @property
    def text(self) -> str:
        """The line for people, without marks, because the egress guard's is a secret."""
        return _MARK.sub("(a mark)", render_line(self.chain, self.line, self.family))


def built_of(chain: str, line: Line, family: Family) -> Built:
    """Make one line, those of a tree without the library."""
    blob = _made(line, family) if line.rule.why else pack(line, family)
    target = target_of(line.rule, family)
    verdict = line.jump or ("" if target.parameters else target.name)
    return Built(chain, line, family, blob, entry_of(family, blob, verdict, SIZES))


@lru_cache(maxsize=1024)
def _made(line: Line, family: Family) -> bytes:
    """Make one line with the library."""
    find_all_options()
    rule = line.rule
    made = LIBRARY_RULE[family]()
    ip = made.get_ip()
    if source := network_of(rule.source, family):
        made.src = str(source)
    if destination := network_of(rule.destination, family):
        made.dst = str(destination)
    if rule.in_interface is not None:
        ip.iniface, ip.iniface_mask = exactly(rule.in_interface)
    if rule.out_interface is not None:
        ip.outiface, ip.outiface_mask = exactly(rule.out_interface)
    if rule.protocol is not None:
        made.protocol = PROTOCOL_NUMBERS[rule.protocol]
    parts = [filled(made.create_match(match.name), match) for match in matches_of(rule, family)]
    target = Extension("ACCEPT") if line.jump else target_of(rule, family)
    parts.append(filled(made.create_target(target.name), target))
    headers = [match.match.u.user for match in made.matches] + [made.target.target.u.user]
    for part, header in zip(parts, headers, strict=True):
        SIZES[header.name.decode(), header.revision] = part.usersize - EXTENSION.size
    blob = bytes(made.rule)
    return leading_to(line.jump, family, blob) if line.jump else blob
