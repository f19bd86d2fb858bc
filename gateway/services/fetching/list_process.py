"""Fetches a provider's list, and hands over its servers in the kept form, in a process of its own.

What a host on the internet sends is decrypted and parsed here, so this process gives up everything
that it can: it has another user id where it may, no capability, and its memory, processor time and
output are limited. It has two descriptors: a connected socket, and a file in memory for the result,
which is the kept list after exit code 0, and the reason in words after FAILED.
"""

import sys
import time

from gateway.errors import NetworkError
from gateway.model import ServerList
from gateway.providers import catalog, lists
from gateway.services.fetching.process_frame import answer_to, give_up_rights, hand_over
from gateway.system import https


def main() -> None:
    """Be the process, and end it."""
    name, host, target, port = sys.argv[1:5]
    hand_over(lambda: _fetched(ServerList(name, host, target, int(port))))


def _fetched(listed: ServerList) -> bytes:
    """Return the list in the kept form. Raises NetworkError and BadListError."""
    provider = catalog.find(listed.provider)
    if provider is None:
        raise NetworkError("unknown provider", listed.provider)
    context = https.trusted()  # the files may be readable for root only
    give_up_rights()
    raw = answer_to(https.Request(listed, lists.LARGEST), context)
    servers = lists.servers_in(provider, raw)
    kept = lists.KeptList(listed.provider, listed.url, int(time.time()), servers)
    return lists.dumped(kept)
