"""What services say about the public address, and what is taken of it; pure.

The forms are those that the services document and gluetun reads (its internal/publicip/api):
ipinfo.io/developers, github.com/mpolden/echoip, ip2location.io/ip2location-documentation, and
speed.cloudflare.com/meta. All of it is the claim of another host: an address has to be one, and of
texts only a short printable one is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from ipaddress import ip_address

from gateway.model.frozen import frozen
from gateway.model.public_ip import ApiKind

LONGEST_TEXT = 100
"""Characters of a text."""
LARGEST_LINES = 4096
"""Octets of the lines in which all of it is handed over."""


@frozen
class PublicAddress:
    """The address that hosts on the internet see, with what is said of it, "" where nothing is."""

    address: str
    country: str = ""
    region: str = ""
    city: str = ""
    hostname: str = ""
    organization: str = ""
    timezone: str = ""


_SAME = {"city": "city", "hostname": "hostname"}
_OF_ECHOIP = {
    "address": "ip",
    "country": "country",
    "region": "region_name",
    "organization": "asn_org",
    "timezone": "time_zone",
    **_SAME,
}
NAMES: dict[ApiKind, Mapping[str, str]] = {
    ApiKind.IPINFO: {
        "address": "ip",
        "country": "country",
        "region": "region",
        "organization": "org",
        "timezone": "timezone",
        **_SAME,
    },
    ApiKind.IFCONFIG_CO: _OF_ECHOIP,
    ApiKind.ECHOIP: _OF_ECHOIP,
    ApiKind.IP2LOCATION: {
        "address": "ip",
        "country": "country_name",
        "region": "region_name",
        "city": "city_name",
        "organization": "as",
        "timezone": "time_zone",
    },
    ApiKind.CLOUDFLARE: {
        "address": "clientIp",
        "country": "country",
        "region": "region",
        "organization": "asOrganization",
        **_SAME,
    },
}
"""What each service calls the fields."""


def taken(
    kind: ApiKind, answer: Callable[[str], str], countries: Mapping[str, tuple[str, ...]]
) -> PublicAddress:
    """Return what is taken of an `answer`, which returns its text of a name, "" without one.

    `countries` has names by code. Raises ValueError without an address.
    """
    found = {field: _text(answer(name)) for field, name in NAMES[kind].items()}
    found["address"] = _address(found["address"])
    names = countries.get(found["country"])
    return PublicAddress(**(found | ({"country": names[0]} if names else {})))


def in_lines(address: PublicAddress) -> str:
    """Return all fields, one in a line."""
    return "\n".join(getattr(address, it.name) for it in fields(address))


def from_lines(text: str) -> PublicAddress:
    """Return what `in_lines` has made the text of. Raises ValueError for any other text."""
    lines = text.split("\n")
    if len(lines) != len(fields(PublicAddress)) or any(_text(it) != it for it in lines):
        raise ValueError("the answer is not in the expected form")
    return PublicAddress(_address(lines[0]), *lines[1:])


def place_of(address: PublicAddress) -> str:
    """Return where the address is said to be, for people."""
    places = (address.city, address.region, address.country)
    return ", ".join(dict.fromkeys(filter(None, places)))


def _text(text: str) -> str:
    """Return a text if it is short and printable, else nothing."""
    text = text.strip()
    return text if len(text) <= LONGEST_TEXT and text.isprintable() else ""


def _address(text: str) -> str:
    """Return an address in its usual form. Raises ValueError."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("the answer has no address") from None
    if getattr(address, "scope_id", None):
        raise ValueError("the answer has no address of the internet")
    return str(address)
