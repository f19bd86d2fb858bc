"""The hosts of the providers that the site plays, by name and address; see providers.py."""

from urllib.parse import urlsplit

from gateway.providers import catalog

LISTS = {
    each.name: (urlsplit(each.url).hostname or "", f"172.31.10.{80 + number}")
    for number, each in enumerate(catalog.PROVIDERS)
    if each.url
}
"""Host and address of each provider's list: neighbours of the gateways on the uplink."""
SERVERS = ("at1.wg.example", "al-tia1.prod.example")
"""What the lists that have no addresses call the site's server."""


def names(server: str) -> dict[str, str]:
    """Return the address of every name; `server` is that of the site's server."""
    return {**dict(LISTS.values()), **dict.fromkeys(SERVERS, server)}
