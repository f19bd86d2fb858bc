"""The services that say which public address a request has come from, and tokens for them."""

from typing import Final

from gateway.model import Secret
from gateway.model.public_ip import AddressApi, ApiKind
from gateway.settings import urls, values
from gateway.settings.values import safe_quote

MOST_APIS: Final = 8
LONGEST_URL: Final = 300
LONGEST_TOKEN: Final = 200

_PREFIX: Final = f"{ApiKind.ECHOIP}#"
_PLACES: Final = {
    ApiKind.IPINFO: ("ipinfo.io", "/json"),
    ApiKind.IFCONFIG_CO: ("ifconfig.co", "/json"),
    ApiKind.IP2LOCATION: ("api.ip2location.io", "/"),
    ApiKind.CLOUDFLARE: ("speed.cloudflare.com", "/meta"),
}
"""Host and target of each service; they answer about the address that asks."""

DEFAULT: Final = tuple(AddressApi("", *place, kind=kind) for kind, place in _PLACES.items())
TAKE_TOKENS: Final = (ApiKind.IPINFO, ApiKind.IP2LOCATION)


def apis(text: str) -> tuple[AddressApi, ...]:
    """Read a list of services."""
    found = tuple(dict.fromkeys(values.comma_list(text, _api)))
    if len(found) > MOST_APIS:
        raise ValueError(f"has more than {MOST_APIS} services; write fewer")
    return found


def tokens(text: str) -> tuple[Secret, ...]:
    """Read a list of tokens."""
    found = [*filter(None, (part.strip() for part in text.split(",")))]
    if any(len(it) > LONGEST_TOKEN or not it.isascii() or not it.isprintable() for it in found):
        raise ValueError(f"must be tokens of at most {LONGEST_TOKEN} ASCII characters")
    return tuple(map(Secret, found))


def _api(text: str) -> AddressApi:
    known = {str(api.kind): api for api in DEFAULT}
    if api := known.get(text.lower()):
        return api
    if text.lower().startswith(_PREFIX):
        return _echoip(text[len(_PREFIX) :])
    raise ValueError(
        f"{safe_quote(text)} is not a service; write {', '.join(known)}, or {_PREFIX}https://host"
    )


def _echoip(text: str) -> AddressApi:
    """Return an echoip server, whose answer as JSON is at `/json` of its URL."""
    write = f"write {_PREFIX}https://host"
    if "@" in text:  # before anything is quoted
        raise ValueError(f"has a user in it; {write}")
    said = safe_quote(text)
    url, found, port = urls.parts_of(text, LONGEST_URL, write)
    host = found.rstrip(".")
    if url.scheme != "https" or not urls.is_name(host):
        raise ValueError(f"{said} does not begin with https:// and the name of a host; {write}")
    if url.query or url.fragment:
        raise ValueError(f"{said} has a query or a part after #; {write}")
    target = f"{url.path.rstrip('/')}/json"
    return AddressApi("", host, target, port or AddressApi.port, kind=ApiKind.ECHOIP)
