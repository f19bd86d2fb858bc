"""The parsers of the variables of forwarded ports."""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from gateway.model.forwarding import MOST_PORTS, ForwarderKind
from gateway.providers import catalog
from gateway.settings import addresses, fields, values
from gateway.settings.values import safe_quote

CUSTOM: Final = "custom"
_OFF: Final = ("off", "none", "no")
KINDS: Final[Mapping[str, ForwarderKind]] = {
    CUSTOM: ForwarderKind.NATPMP,
    **{kind.value: kind for kind in ForwarderKind},
}
ELSEWHERE: Final = ("perfect privacy", "privatevpn")
"""Providers of gluetun whose ports are a number that the account shows or that is calculated."""


def provider(text: str) -> str:
    """Read the name of who is asked for ports: one of ours, or of a provider."""
    name = text.lower()
    known = catalog.find(name)
    name = known.name if known else name
    if name not in (*KINDS, *ELSEWHERE) and known is None:
        words = ", ".join(KINDS)
        raise ValueError(f"must be one of {words}, got {safe_quote(text)}")
    return name


def gateway(text: str) -> IPv4Address:
    """Read the address of the host in the tunnel that is asked."""
    value = addresses.address(text)
    if not isinstance(value, IPv4Address):
        raise ValueError(  # noqa: TRY004 - the value is wrong
            f"{value} is an IPv6 address; ports are asked for over IPv4"
        )
    if value.is_loopback or value.is_unspecified or value.is_multicast:
        raise ValueError(f"{value} is not a host in the tunnel; write the server's address there")
    return value


def listening_ports(text: str) -> tuple[int, ...]:
    """Read a list of ports; 0 alone is none."""
    if text == "0":
        return ()
    found = values.comma_list(text, values.port)
    if len(set(found)) < len(found):
        raise ValueError("has a port twice; each forwarded port needs one of its own")
    if len(found) > MOST_PORTS:
        raise ValueError(f"has {len(found)} ports; at most {MOST_PORTS} are asked for")
    return found


def count(text: str) -> int:
    """Read how many ports are asked for."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST_PORTS))):
        raise ValueError(f"must be a number from 1 to {MOST_PORTS}, got {safe_quote(text)}")
    if not 1 <= int(text) <= MOST_PORTS:
        raise ValueError(f"must be a number from 1 to {MOST_PORTS}, got {safe_quote(text)}")
    return int(text)


def status_file(text: str) -> str:
    """Read the path of the file with the ports; `off` is none."""
    return "" if text.lower() in _OFF else str(fields.path(text))
