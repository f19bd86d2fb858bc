"""Where the lists of providers are kept; apart from what reads them, which the loop never needs."""

PLACES = ("/config/servers", "/var/lib/portcullis/servers")
"""The directories: a list is written to the first one that takes it, and the newest one is read."""


def file_name(provider: str) -> str:
    """Return the name of the file that keeps the list of `provider`."""
    return f"{provider.replace(' ', '-')}.json"


def registrations_name(provider: str) -> str:
    """Return the name of the file that keeps what servers of `provider` have answered to a key."""
    return f"{provider.replace(' ', '-')}.registrations"
