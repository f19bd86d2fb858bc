"""Which torrent client gets the forwarded port, and which port that is, from all its variables."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gateway.model import Network, PortRange, Secret
from gateway.model.forwarding import Forwarding
from gateway.model.port_client import ClientKind, ClientUrl, PortClient
from gateway.settings.findings import Findings
from gateway.settings.port_client import HERE
from gateway.settings.schema import Settings

USUAL: Final = {
    ClientKind.QBITTORRENT: ClientUrl(HERE, 8080),
    ClientKind.TRANSMISSION: ClientUrl(HERE, 9091, "transmission"),
    ClientKind.DELUGE: ClientUrl(HERE, 8112),
}
"""Where each of them is, unless its user has changed it."""
ENDINGS: Final[dict[ClientKind, tuple[str, ...]]] = {
    ClientKind.QBITTORRENT: (),
    ClientKind.TRANSMISSION: ("rpc", "web"),
    ClientKind.DELUGE: ("json",),
}
"""What a URL may end with that people copy from a browser or a document."""


def settle(
    given: Settings,
    ports: Sequence[PortRange],
    subnets: Sequence[Network],
    forwarding: Forwarding | None,
    findings: Findings,
) -> PortClient | None:
    """Return the client, None if none is wanted; report what is missing or too much.

    `ports` are those that the user lists, `subnets` what can be reached outside the tunnel.
    With `forwarding` the server is asked for ports.
    """
    if given.forwarded_port_client is None:
        _report_unused(given, findings)
        return None
    wanted, where = given.forwarded_port_client.value, given.forwarded_port_client.origin.where
    place = _place(given, wanted, subnets, findings)
    user = given.forwarded_port_client_user
    password = given.forwarded_port_client_password
    if wanted is ClientKind.DELUGE and user:
        findings.info(user.origin.where, "Deluge asks for a password only; remove this variable")
    if wanted is not ClientKind.DELUGE and user and not password:
        findings.problem(
            user.origin.where,
            "has no password; set FORWARDED_PORT_CLIENT_PASSWORD too, better as a secret file",
        )
    if wanted is ClientKind.TRANSMISSION and password and not user:
        findings.problem(
            password.origin.where, "has no user; set FORWARDED_PORT_CLIENT_USER to rpc-username"
        )
    numbers = {number for it in ports for number in range(it.first, min(it.last, it.first + 1) + 1)}
    if forwarding and forwarding.listening:
        findings.problem(
            "VPN_PORT_FORWARDING_LISTENING_PORTS",
            f"does not go together with {where}: {wanted} would announce a port that the internet "
            "cannot reach; remove it, so that the client gets the forwarded port itself",
        )
    if not forwarding and len(numbers) != 1:
        findings.problem(
            where,
            f"has no port to pass to {wanted}: FIREWALL_VPN_INPUT_PORTS lists "
            f"{'more than one' if numbers else 'none'}; list the one that your provider forwards, "
            "alone, or set VPN_PORT_FORWARDING=on",
        )
    by_default = "admin" if wanted is ClientKind.QBITTORRENT and password else ""
    first = "deluge" if wanted is ClientKind.DELUGE else ""
    return PortClient(
        wanted,
        place,
        user.value.reveal() if user else by_default,
        password.value if password else Secret(first),
        None if forwarding or len(numbers) != 1 else numbers.pop(),
    )


def _place(
    given: Settings, wanted: ClientKind, subnets: Sequence[Network], findings: Findings
) -> ClientUrl:
    """Return where the client is; report an address that cannot be reached."""
    if given.forwarded_port_client_url is None:
        return USUAL[wanted]
    place, where = (
        given.forwarded_port_client_url.value,
        given.forwarded_port_client_url.origin.where,
    )
    reached = place.address.is_loopback or any(place.address in it for it in subnets)
    if not reached:
        findings.problem(
            where,
            f"{place.address} is neither on loopback nor in a subnet of "
            "FIREWALL_OUTBOUND_SUBNETS; write 127.0.0.1 for a client in the gateway's network",
        )
    path = place.path
    for ending in ENDINGS[wanted]:
        if path == ending or path.endswith(f"/{ending}"):
            path = path.removesuffix(ending).strip("/")
    return replace(place, path=path or USUAL[wanted].path)


def _report_unused(given: Settings, findings: Findings) -> None:
    for it in (
        given.forwarded_port_client_url,
        given.forwarded_port_client_user,
        given.forwarded_port_client_password,
    ):
        if it is not None:
            findings.warn(it.origin.where, "has no effect without FORWARDED_PORT_CLIENT")
