"""Where lists are kept that the gateway fetches; apart from what reads them."""

import hashlib

from gateway.model import Errand

PLACES = ("/config/servers", "/var/lib/portcullis/servers")
"""The directories of lists of servers: a list is written to the first one that takes it, and the
newest one is read."""

BLOCK_PLACES = ("/config/blocked", "/var/lib/portcullis/blocked", "/run/portcullis/blocked")
"""The same for lists of blocked names. The resolver's own directory is one that can be written."""


def file_name(provider: str) -> str:
    """Return the name of the file that keeps the list of `provider`."""
    return f"{provider.replace(' ', '-')}.json"


def registrations_name(provider: str) -> str:
    """Return the name of the file that keeps what servers of `provider` have answered to a key."""
    return f"{provider.replace(' ', '-')}.registrations"


def ports_name(provider: str) -> str:
    """Return the name of the file that keeps the ports that servers of `provider` have signed."""
    return f"{provider.replace(' ', '-')}.ports"


def blocked_name(listed: Errand) -> str:
    """Return the name of the file that keeps a list of blocked names: people see whose it is."""
    number = hashlib.sha256(listed.url.encode()).hexdigest()[:12]
    return f"{listed.host}-{number}.names"
