"""Decides from all variables whether and how a server is asked for ports."""

from collections.abc import Sequence
from typing import Final

from gateway.model.forwarding import STATUS_FILE, ForwarderKind, Forwarding
from gateway.providers import catalog
from gateway.providers.asked import gateway_for, looks_like_proton
from gateway.settings.findings import Findings
from gateway.settings.port_fields import CUSTOM, KINDS
from gateway.settings.schema import Settings
from gateway.settings.tunnels import SourcedTunnel

_SWITCH: Final = "VPN_PORT_FORWARDING"
_WHO: Final = "VPN_PORT_FORWARDING_PROVIDER"

_DEPENDENT: Final = (
    *("vpn_port_forwarding_provider", "vpn_port_forwarding_gateway"),
    *("vpn_port_forwarding_listening_ports", "vpn_port_forwarding_ports_count"),
    *("vpn_port_forwarding_status_file", "vpn_port_forwarding_up_command"),
    "vpn_port_forwarding_down_command",
)
"""Variables that have no effect by themselves."""


def settle(
    given: Settings, tunnels: Sequence[SourcedTunnel], findings: Findings
) -> Forwarding | None:
    """Return what is asked for, None where nothing is to be, or where it is not possible."""
    switch = given.vpn_port_forwarding
    if switch is None or not switch.value:
        if switch is None:
            for field in _DEPENDENT:
                if value := getattr(given, field):
                    findings.info(value.origin.where, f"has no effect without {_SWITCH}=on")
        return None
    kind = _kind(given, tunnels, findings)
    if kind is None or (kind is ForwarderKind.SIGNED and not _can_sign(given, findings)):
        return None
    wanted = given.vpn_port_forwarding_ports_count
    listening = given.vpn_port_forwarding_listening_ports
    number = wanted.value if wanted else max(1, len(listening.value) if listening else 0)
    number = 1 if kind is ForwarderKind.SIGNED else number
    if listening and len(listening.value) > number:
        findings.warn(
            listening.origin.where,
            f"has {len(listening.value)} ports, but {number} is asked for: the others have no "
            "effect; set VPN_PORT_FORWARDING_PORTS_COUNT",
        )
    file, up, down = (
        given.vpn_port_forwarding_status_file,
        given.vpn_port_forwarding_up_command,
        given.vpn_port_forwarding_down_command,
    )
    found = Forwarding(
        kind,
        given.vpn_port_forwarding_gateway.value if given.vpn_port_forwarding_gateway else None,
        number,
        listening.value[:number] if listening else (),
        file.value if file else STATUS_FILE,
        up.value if up else (),
        down.value if down else (),
    )
    _check(found, tunnels, findings)
    return found


def _kind(
    given: Settings, tunnels: Sequence[SourcedTunnel], findings: Findings
) -> ForwarderKind | None:
    """Return how the server is asked, None where it cannot be."""
    chosen, service = given.vpn_port_forwarding_provider, given.vpn_service_provider
    name = chosen.value if chosen else _named(service.value if service else CUSTOM)
    where = _WHO if chosen else _SWITCH
    if name == CUSTOM and not chosen and any(looks_like_proton(it.tunnel) for it in tunnels):
        findings.info(where, "the tunnel has the addresses of Proton VPN, so it is asked that way")
        return ForwarderKind.PROTONVPN
    if name in KINDS:
        return KINDS[name]
    findings.warn(
        where,
        f"has no effect: {name} has no protocol to ask for ports; list a port that your account "
        f"shows in FIREWALL_VPN_INPUT_PORTS, or set {_WHO}=natpmp if its server speaks NAT-PMP",
    )
    return None


def _can_sign(given: Settings, findings: Findings) -> bool:
    """Return whether the servers can be asked to sign a port: they take the account's token."""
    service = given.vpn_service_provider
    known = catalog.find(service.value) if service else None
    if known is None or known.forwards is None:
        findings.warn(
            _SWITCH,
            "has no effect: ports of Private Internet Access take a key that the gateway has "
            "registered; set VPN_SERVICE_PROVIDER=private internet access, OPENVPN_USER and "
            "OPENVPN_PASSWORD",
        )
        return False
    count, gateway = given.vpn_port_forwarding_ports_count, given.vpn_port_forwarding_gateway
    if count and count.value > 1:
        findings.warn(count.origin.where, "has no effect: Private Internet Access gives one port")
    if gateway:
        findings.warn(gateway.origin.where, "has no effect: the server of the tunnel is asked")
    if given.port_forward_only is None or not given.port_forward_only.value:
        findings.info(_SWITCH, "not every server forwards ports: set PORT_FORWARD_ONLY=on")
    return True


def _named(text: str) -> str:
    """Return the name of a provider as this gateway writes it."""
    known = catalog.find(text)
    return known.name if known else text


def _check(forwarding: Forwarding, tunnels: Sequence[SourcedTunnel], findings: Findings) -> None:
    """Refuse a tunnel in which the host that forwards ports is not known."""
    for each in tunnels:
        tunnel = each.tunnel
        if not tunnel.addresses or forwarding.kind is ForwarderKind.SIGNED:  # not known yet
            continue
        if not tunnel.has_family(4):
            findings.problem(
                _SWITCH,
                "takes an IPv4 address of the tunnel, because ports are asked for over IPv4; add "
                f"one to WIREGUARD_ADDRESSES, or set {_SWITCH}=off",
            )
        elif gateway_for(forwarding, tunnel) is None:
            findings.problem(
                "VPN_PORT_FORWARDING_GATEWAY",
                "is not set, and the tunnel does not say which host forwards ports; write its "
                "address in the tunnel",
            )
        else:
            continue
        return
