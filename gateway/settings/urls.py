"""URLs as values of variables, taken apart with the same care everywhere."""

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from gateway.settings import names
from gateway.settings.values import safe_quote


def parts_of(text: str, most: int, write: str) -> tuple[SplitResult, str, int | None]:
    """Return the parts of a URL of at most `most` characters, its host, and its port if it has one.

    Raises ValueError; `write` says what to write instead. The caller refuses passwords before.
    """
    said = safe_quote(text)
    if len(text) > most or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{said} is not a URL of at most {most} ASCII characters")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(f"{said} is not a URL; {write}") from None
    return url, host, port


def is_name(host: str) -> bool:
    """Return whether a host is a name and no address."""
    try:
        ip_address(host)
    except ValueError:
        return names.is_name(host)
    return False
