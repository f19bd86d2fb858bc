"""Whom the health probe may ask: somebody whom nothing but the tunnel reaches."""

from collections.abc import Sequence

from gateway.model import Address, HealthProbe, Network, ProbeKind, Tunnel
from gateway.settings.findings import Findings


def outside(wanted: HealthProbe | None, subnets: Sequence[Network], findings: Findings) -> None:
    """Refuse to ask somebody outside the tunnel whether the tunnel is alive."""
    address = wanted.address if wanted else None
    if address and any(address in subnet for subnet in subnets):
        findings.wrong(
            "HEALTH_PROBE",
            f"{address} is in FIREWALL_OUTBOUND_SUBNETS, outside the tunnel, and says nothing of "
            "it; name somebody inside",
        )


def inside(
    wanted: HealthProbe | None,
    tunnel: Tunnel,
    dns: Sequence[Address],
    subnets: Sequence[Network],
    findings: Findings,
) -> None:
    """Refuse to ask somebody whom the tunnel does not reach; tell when there is nobody to ask."""
    if wanted is None or wanted.kind in {ProbeKind.AUTO, ProbeKind.OFF}:
        return
    allowed = [network for peer in tunnel.peers for network in peer.allowed_ips]
    if wanted.address is None:
        if not any(
            any(server in network for network in allowed)
            and not server.is_loopback
            and tunnel.has_family(server.version)
            and not any(server in subnet for subnet in subnets)
            for server in dns
        ):
            findings.warn(
                "HEALTH_PROBE",
                f"{wanted.kind} has nobody to ask, because DNS_ADDRESS names no resolver in the "
                "tunnel; name one, or write icmp:ADDRESS",
            )
    elif any(wanted.address == address.ip for address in tunnel.addresses):
        findings.wrong(
            "HEALTH_PROBE", f"{wanted.address} is the tunnel's own address; name somebody else"
        )
    elif not any(wanted.address in network for network in allowed) or not tunnel.has_family(
        wanted.address.version
    ):
        findings.wrong(
            "HEALTH_PROBE",
            f"{wanted.address} is not reached through the tunnel, by its AllowedIPs and addresses; "
            "name somebody who is",
        )
