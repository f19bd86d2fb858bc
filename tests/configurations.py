"""Configurations to load in tests: made-up keys, a whole set of variables, files in a root."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway import settings
from gateway.errors import ConfigError
from gateway.settings import Loaded


def made_up_key(number: int) -> str:
    """Return a key that nobody has: the base64 form of 32 equal bytes."""
    return b64encode(bytes([number]) * 32).decode()


PRIVATE = made_up_key(1)
PUBLIC = made_up_key(2)
PRESHARED = made_up_key(3)
OTHER_PRIVATE = made_up_key(11)
OTHER_PUBLIC = made_up_key(12)

COMPLETE = {
    "WIREGUARD_PRIVATE_KEY": PRIVATE,
    "WIREGUARD_PUBLIC_KEY": PUBLIC,
    "WIREGUARD_ADDRESSES": "10.64.1.2/32,fd7d::2/128",
    "WIREGUARD_ENDPOINT_IP": "203.0.113.7",
    "WIREGUARD_ENDPOINT_PORT": "51820",
    "DNS_ADDRESS": "10.64.0.1",
}
"""The least that connects and resolves names, in variables alone."""

QUICK = f"""\
[Interface]
PrivateKey = {OTHER_PRIVATE}
Address = 10.2.0.2/32
DNS = 10.2.0.1

[Peer]
PublicKey = {OTHER_PUBLIC}
AllowedIPs = 0.0.0.0/0
Endpoint = 198.51.100.9:51820
"""
"""The least that connects and resolves names, as a wg-quick file."""


def put(root: Path, path: str, text: str | bytes, mode: int = 0o600) -> None:
    """Write a file at the container's `path` below `root`."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)


def problems(environ: Mapping[str, str], root: Path) -> list[str]:
    """Return the problems of a configuration that must be refused."""
    with pytest.raises(ConfigError) as caught:
        settings.load(environ, root)
    return [str(problem) for problem in caught.value.problems]


def told(loaded: Loaded) -> str:
    """Return all notices, one a line."""
    return "\n".join(map(str, loaded.notices))
