"""The two authorities of certificates that a provider with keys for each server needs."""

from dataclasses import dataclass
from pathlib import Path

from tests.lab.tls import Authority, authority


@dataclass(frozen=True)
class Trust:
    """The authority of the web, for the login, and the provider's own, for its servers."""

    web: Authority
    own: Authority


def trust_in(directory: Path) -> Trust:
    """Make both, with files in `directory`.

    The provider's is not as RFC 5280 wants it, and Python 3.13 insists on that.
    """
    return Trust(authority(directory), authority(directory, "own", strict=False))
