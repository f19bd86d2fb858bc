"""Parsers of the resolvers that the gateway's own one asks.

A ValueError says what to write. It repeats what was written only through `safe_quote`.
"""

import re
import tomllib
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.model import (
    Address,
)
from gateway.model.name_server import LocalZone, Upstream
from gateway.settings import addresses, fields, values
from gateway.settings.values import safe_quote

TLS_PORT: Final = 853
"""RFC 7858, section 3.1."""

DEFAULT: Final = "cloudflare"

MOST_LOCAL: Final = 16
"""Resolvers of local zones: each has rules of its own."""

MOST_FILES: Final = 16

_TYPES: Final = ("dot", "plain")
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
"""With the lengths of RFC 1035, section 2.3.4: unbound does not start with a longer label."""


@cache
def known() -> dict[str, tuple[Upstream, ...]]:
    """Return the resolvers that have a name in `upstreams.toml`, by that name."""
    data = tomllib.loads(Path(__file__).with_name("upstreams.toml").read_text("utf-8"))
    return {
        provider: tuple(
            Upstream(addresses.address(it), TLS_PORT, entry["name"], provider)
            for it in entry["addresses"]
        )
        for provider, entry in data.items()
    }


def upstreams(text: str) -> tuple[Upstream, ...]:
    """Read a list of resolvers that are asked over TLS: names of providers, or written out."""
    return _joined(values.comma_list(text, _provider))


def plain_upstreams(text: str) -> tuple[Upstream, ...]:
    """Read a list of resolvers that are asked unencrypted: an address, perhaps with a port."""
    return values.comma_list(text, _plain)


def upstream_type(text: str) -> str:
    """Read how resolvers are asked."""
    if text.lower() == "doh":
        raise ValueError(
            "doh is not supported; write dot, which asks the same resolvers over TLS, or leave it "
            "out"
        )
    return values.choice(text, _TYPES)


def domains(text: str) -> tuple[str, ...]:
    """Read a list of domains."""
    return values.comma_list(text, _domain)


def local_zones(text: str) -> tuple[LocalZone, ...]:
    """Read a list of domains, each with a resolver; several of one domain add up."""
    found: dict[str, tuple[Address, ...]] = {}
    for domain, resolver in values.comma_list(text, _local):
        found[domain] = tuple(dict.fromkeys((*found.get(domain, ()), resolver)))
    if len({it for several in found.values() for it in several}) > MOST_LOCAL:
        raise ValueError(f"names more than {MOST_LOCAL} resolvers; list fewer")
    return tuple(LocalZone(domain, several) for domain, several in found.items())


def _local(text: str) -> tuple[str, Address]:
    domain, equals, resolver = text.partition("=")
    if not equals:
        raise ValueError(
            f"{safe_quote(text)} has no resolver; write one such as home.lan=192.168.1.1"
        )
    return _domain(domain.strip()), _usable(resolver.strip())


def block_files(text: str) -> tuple[PurePosixPath, ...]:
    """Read a list of paths."""
    paths = tuple(dict.fromkeys(values.comma_list(text, fields.path)))
    if len(paths) > MOST_FILES:
        raise ValueError(f"has more than {MOST_FILES} files; join some of them")
    return paths


def is_name(text: str) -> bool:
    """Return whether `text`, in small letters, is a name of the DNS without a final dot."""
    return _NAME.fullmatch(text) is not None


def _joined(found: tuple[tuple[Upstream, ...], ...]) -> tuple[Upstream, ...]:
    return tuple(dict.fromkeys(one for several in found for one in several))


def _provider(text: str) -> tuple[Upstream, ...]:
    listed = known().get(" ".join(re.split(r"[\s_-]+", text.lower())))
    if listed:
        return listed
    if "@" not in text and "#" not in text:
        raise ValueError(
            f"{safe_quote(text)} is not in the list of docs/configuration.md; write one of "
            f"{', '.join(sorted(known()))}, or address@853#name with the name in its certificate"
        )
    return (_written_out(text),)


def _written_out(text: str) -> Upstream:
    """Read `address@port#name`, as unbound.conf(5) has it; the port may be left out."""
    where, sharp, name = text.partition("#")
    host, at, port = where.partition("@")
    if not sharp or not _NAME.fullmatch(name.lower()):
        raise ValueError(
            f"{safe_quote(text)} does not say which name the certificate has, and without one "
            "anybody's would do; write address@853#name"
        )
    return Upstream(_usable(host), values.port(port) if at else TLS_PORT, name.lower())


def _plain(text: str) -> Upstream:
    try:
        return Upstream(_usable(text))
    except ValueError:
        host, colon, port = text.rpartition(":")
        if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            raise
        return Upstream(_usable(host.strip("[]")), values.port(port))


def _usable(text: str) -> Address:
    value = addresses.resolver(text)
    if value.is_loopback:
        raise ValueError(
            f"{value} is loopback, where the gateway's own resolver listens; write a resolver "
            "that is reached through the tunnel"
        )
    return value


def _domain(text: str) -> str:
    name = text.lower().removeprefix("*.").strip(".")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{safe_quote(text)} is not a domain; write one such as example.org")
    return name
