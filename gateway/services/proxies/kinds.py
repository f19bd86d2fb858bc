"""The two kinds of proxies: their programs, their configurations, and what they write."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from gateway.model.frozen import frozen
from gateway.model.proxies import PROXY_USER, HttpProxy, Proxy, SocksProxy
from gateway.policy import tinyproxy
from gateway.services.confined import command
from gateway.services.own_module import command_of
from gateway.system.child import Program
from gateway.system.process import find_program

CONFIGURATION = 41
"""The number of the descriptor of a proxy's configuration."""
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "RES_OPTIONS": "edns0"}
"""Each arena of glibc takes 64 MiB of address space, which is limited. With EDNS, answers of up to
1200 bytes come by UDP: a proxy may not ask by TCP (P19)."""

PROBE = "/portcullis-asks-whether-you-are-there"
"""What the gateway asks an HTTP proxy for."""
LONGEST = 200
"""Characters of a request that are logged."""

_MODULE = "gateway.services.proxies.socks_process"
_HEAD = r"[^\[\]]*\[\d+\]: "
"""How a line of tinyproxy begins; what follows may be a client's words."""
_REQUEST = re.compile(_HEAD + r"Request \(file descriptor (\d+)\): (\S+) (\S+)")
_CONNECT = re.compile(_HEAD + r"Connect \(file descriptor (\d{1,5})\): (\S+)")
_UNAUTHORIZED = re.compile(_HEAD + r"[Uu]nauthorized connection from \"?([0-9a-fA-F.:]+)")
_REFUSED = re.compile(r"(refused|wrong password) ([0-9a-fA-F.:]+)(?:%.*)?")
_ACCOUNT = re.compile(r"(^|//)[^/]*@")
_QUERY = re.compile(r"[?#].*")
"""What may be secret of an address."""


class Heard(NamedTuple):
    """What a line of a proxy says: a `request` of a `client`, or why a client is refused.

    `is_stranger`: because of its address.
    """

    client: str
    request: str = ""
    problem: str = ""
    remedy: str = ""
    is_stranger: bool = False


@frozen
class Kind:
    """A proxy of one kind.

    `switch` is the variable that turns it on, `place` the one that says where it listens. `program`
    raises MissingError. `question` is answered by every proxy of the kind. `heard` returns what a
    line that it wrote says, None for nothing.
    """

    name: str
    proxy: Proxy
    switch: str
    place: str
    question: bytes
    program: Callable[[], Program]
    configuration: Callable[[], bytes]
    heard: Callable[[str], Heard | None]


def http(proxy: HttpProxy) -> Kind:
    """Return what is special about an HTTP proxy."""
    return Kind(
        "http proxy",
        proxy,
        "HTTPPROXY",
        "HTTPPROXY_LISTENING_ADDRESS",
        f"GET {PROBE} HTTP/1.0\r\n\r\n".encode(),
        _tinyproxy,
        lambda: tinyproxy.configuration(proxy).encode(),
        _LinesOfTinyproxy().heard,
    )


def socks(proxy: SocksProxy) -> Kind:
    """Return what is special about a SOCKS proxy."""
    return Kind(
        "socks proxy",
        proxy,
        "SOCKS5_ENABLED",
        "SOCKS5_LISTENING_ADDRESS",
        bytes((5, 2, 0, 2)),
        _socks,
        lambda: _configuration(proxy),
        _heard_of_socks,
    )


def _tinyproxy() -> Program:
    """Return the program of the HTTP proxy. Raises MissingError."""
    words = ("-d", "-c", f"/dev/fd/{CONFIGURATION}")
    return Program(tuple(command(PROXY_USER, find_program("tinyproxy"), *words)), env=ENVIRONMENT)


def _socks() -> Program:
    argv = command_of(_MODULE, str(CONFIGURATION), str(PROXY_USER))
    return Program(argv, env=ENVIRONMENT)


def _configuration(proxy: SocksProxy) -> bytes:
    """Return the configuration for `socks_process`."""
    account, subnets = proxy.account, proxy.subnets
    return json.dumps({
        "listen": [proxy.listening.host] if proxy.listening.host else ["0.0.0.0", "::"],  # noqa: S104
        "port": proxy.listening.port,
        "account": [account.user, account.password.reveal()] if account else None,
        "subnets": None if subnets is None else [*map(str, subnets)],
    }).encode()  # fmt: skip


def _heard_of_socks(line: str) -> Heard | None:
    found = _REFUSED.fullmatch(line)
    if found is None:
        return None
    return _refused(found[2], "SOCKS5_") if found[1] == "refused" else _wrong(found[2], "SOCKS5_")


def _refused(client: str, prefix: str) -> Heard:
    variable = f"{prefix}ALLOWED_SUBNETS"
    return Heard(
        client,
        problem="no listed subnet has its address",
        remedy=f"add {client} or its network to {variable}, if it may use the proxy",
        is_stranger=True,
    )


def _wrong(client: str, prefix: str) -> Heard:
    return Heard(
        client,
        problem="its user name or password is wrong",
        remedy=f"compare {prefix}USER and {prefix}PASSWORD with what the client has",
    )


class _LinesOfTinyproxy:
    """Understands its lines: first one with a client's address, then one with its request.

    Both have the number of a descriptor, of which there are few.
    """

    def __init__(self) -> None:
        self._clients: dict[str, str] = {}

    def heard(self, line: str) -> Heard | None:
        """Return what a line says, None for nothing."""
        if found := _UNAUTHORIZED.match(line):
            return _refused(found[1], "HTTPPROXY_")
        if found := _CONNECT.match(line):
            self._clients[found[1]] = found[2]
        elif (found := _REQUEST.match(line)) and found[3] != PROBE:
            public = _ACCOUNT.sub(r"\1", _QUERY.sub("", found[3]))
            target = "".join(filter(str.isprintable, public))
            client = self._clients.pop(found[1], "")
            return Heard(client, request=f"{found[2][:16]} {target[:LONGEST]}")
        return None
