"""Fetches a list of blocked names, and hands over its rules, in a process of its own.

As `list_process`, and for the same reasons. The result has one rule in a line and nothing else of
the list.
"""

import sys
from io import BytesIO

from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.policy.blocked import MOST_WORDS, Blocked
from gateway.providers.lists import LARGEST_KEPT
from gateway.services.fetching.process_frame import answer_to, give_up_rights, hand_over
from gateway.services.resolver.block_process import LARGEST, lines_of
from gateway.system import https


def main() -> None:
    """Be the process, and end it."""
    host, target, port = sys.argv[1:4]
    hand_over(lambda: _fetched(Errand("", host, target, int(port))))


def _fetched(listed: Errand) -> bytes:
    """Return the rules of the list. Raises NetworkError."""
    context = https.trusted()  # the files may be readable for root only
    give_up_rights()
    request = https.Request(listed, LARGEST, accept="text/plain, */*")
    return rules_of(answer_to(request, context), listed.url)


def rules_of(raw: bytes, url: str) -> bytes:
    """Return the rules of a list in the kept form. Raises NetworkError if it is not to be used."""
    found = Blocked()
    if not found.read(lines_of(BytesIO(raw))):
        raise NetworkError(f"it has more than {MOST_WORDS} words and lines", url)
    if fault := found.fault:
        raise NetworkError(fault, url)
    rules = "".join(found.lines()).encode("ascii")
    if len(rules) > LARGEST_KEPT:
        raise NetworkError(f"its names take more than {LARGEST_KEPT >> 20} MiB", url)
    return rules
