"""Asks a provider's server for a signed port, and reads what is kept, in a process without rights.

As `key_process`, and for the same reasons. What to do is JSON in the file SECRETS, since it has a
token or a signature: `kind` is `known`, `sign` or `bind`. The result is lines of
`signed_lines`, or the reason in words after FAILED, and after REFUSED if the server refuses.
"""

import json
import os
import stat
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

from gateway import providers
from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.providers import catalog, registrations, signed_ports
from gateway.providers.kept import ports_name, registrations_name
from gateway.providers.lists import BadListError, decoded
from gateway.providers.registrations import Registrations
from gateway.providers.server import (
    BadAnswerError,
    PortService,
    Registered,
    SignedPort,
)
from gateway.providers.signed_ports import KeptPort
from gateway.services.fetching.process_frame import (
    answer_to,
    give_up_rights,
    hand_over_text,
    secrets_given,
)
from gateway.services.ports.signed_lines import port_line, server_line
from gateway.system import https

LARGEST = 64 << 10
"""Octets of an answer; one has less than a thousand."""
REFUSAL = "the server refuses what it is asked for (HTTP {status})"
_KNOWN, _SIGN, _BIND = "known", "sign", "bind"


def main() -> NoReturn:
    """Be the process, and end it."""
    hand_over_text(_done)


def _done() -> str:
    """Do what the secrets of the request say. Raises NetworkError and BadAnswerError."""
    given = secrets_given()
    service = _service(given["provider"])
    return (_known if given["kind"] == _KNOWN else _asked)(service, given)


def _service(name: str) -> PortService:
    provider = catalog.find(name)
    if provider is None or provider.forwards is None:
        raise NetworkError("unknown provider", name)
    return provider.forwards


def _asked(service: PortService, given: dict[str, str]) -> str:
    """Ask the server at the socket; return the line of a port that it has signed, or nothing."""
    own = Path(providers.__file__).with_name(service.authority)
    context = https.trusted_alone(Path(given["authority"] or own))
    give_up_rights()
    if given["kind"] == _SIGN:
        target, query = service.sign_target, service.sign_query(given["token"])
    else:
        signed = SignedPort(0, 0, given["payload"], given["signature"])
        target, query = service.bind_target, service.bind_query(signed)
    place = Errand(given["provider"], given["server"], target, int(given["port"]))
    request = https.Request(place, LARGEST, query=query)
    document = decoded(answer_to(request, context, refusal=REFUSAL), LARGEST)
    if given["kind"] == _BIND:
        service.read_bound(document)
        return ""
    return port_line(KeptPort(given["server"], service.read_signed(document)))


def _known(service: PortService, given: dict[str, str]) -> str:
    """Return the lines for what is kept for a tunnel, nothing where its server is not known."""
    provider, places = given["provider"], json.loads(given["places"])
    files = [
        [_content(Path(place) / name) for place in places]
        for name in (registrations_name(provider), ports_name(provider))
    ]
    give_up_rights()
    registered, ports = files
    found = list(_matching(registered, given["key"], given["address"]))
    if not found:
        return ""
    kept, server = max(found, key=lambda it: it[0].made)
    if not isinstance(server.gateway, IPv4Address):
        raise BadAnswerError("the server has not said which address it has in the tunnel")
    newest = next((it for it in ports if it), b"")
    lines = map(port_line, signed_ports.read(newest, service))
    return "\n".join((server_line(server.name, server.gateway, kept.token), *lines))


def _matching(
    contents: list[bytes], key: str, address: str
) -> Iterator[tuple[Registrations, Registered]]:
    """Yield the server with WireGuard's public `key` that has given `address`, of each file."""
    for content in filter(None, contents):
        try:
            kept = registrations.read(content)
        except BadListError:
            continue
        for server in kept.servers:
            if (server.public_key, str(server.tunnel_address)) == (key, address):
                yield kept, server


def _content(path: Path) -> bytes:
    """Return what a regular file of ours has, nothing where there is none or it is too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        content = file.read(registrations.LARGEST + 1)
    return content if len(content) <= registrations.LARGEST else b""
