"""What the target of a request says: its path, and a credential that does not belong there."""

from urllib.parse import parse_qsl, unquote_to_bytes

SUSPICIOUS = frozenset(
    {
        *("apikey", "xapikey", "key", "token", "accesstoken", "auth", "authorization"),
        *("password", "passwd", "pass", "secret", "user", "username"),
    }
)
"""Names in a query that a credential would have, in small letters, without `-` and `_`."""

MOST_FIELDS = 32


def path_of(target: bytes) -> str | None:
    """Return the path of a target in origin form (RFC 9112, 3.2.1), None for another form."""
    if not target.startswith(b"/"):
        return None
    return target.partition(b"?")[0].decode("ascii", "replace")


def has_credential(target: bytes) -> bool:
    """Return whether the query of a target looks as if it had a key or a password.

    Addresses of requests end up in logs and histories, so it is refused and not used.
    """
    query = target.partition(b"?")[2].decode("ascii", "replace")
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return True
    return any(_bare(name) in SUSPICIOUS for name, _ in fields)


def _bare(name: str) -> str:
    text = unquote_to_bytes(name).decode("ascii", "replace")
    return text.lower().replace("-", "").replace("_", "").strip()
