"""What has to fit together: within one tunnel, and across subnets, resolvers and servers."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from gateway.model import HealthProbe, HostPort, Network, PortRange, ProbeKind, Protocol
from gateway.settings.addresses import covers_family, simplified
from gateway.settings.findings import Findings, joined
from gateway.settings.sourced import Kind, Sourced
from gateway.settings.tunnels import SourcedPeer, SourcedTunnel

_FIRST_IPV6_MTU: Final = 1280
_ASKED_RESOLVERS: Final = 3  # MAXNS, resolv.conf(5)


def check_tunnel(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse what contradicts itself within one tunnel; tell what it does not carry."""
    mtu = tunnel.mtu.value
    if mtu is not None and mtu < _FIRST_IPV6_MTU and tunnel.tunnel.has_family(6):
        findings.wrong(
            tunnel.mtu.origin.where,
            f"an MTU of {mtu} is too small for the tunnel's IPv6 address; write at least "
            f"{_FIRST_IPV6_MTU}, or leave the IPv6 address out",
        )
    own = {address.ip for address in tunnel.addresses.value}
    for peer in tunnel.peers:
        if peer.server.host.value in own:
            findings.wrong(
                peer.server.host.origin.where,
                f"the server's address {peer.server.host.value} is the tunnel's own; write the "
                "address at which the internet reaches the server",
            )
        _check_keys(peer, tunnel, findings)
    _check_peers(tunnel, findings)
    _tell_coverage(tunnel, findings)


def _check_keys(peer: SourcedPeer, tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse one key in two places: a public key is shown, and the other two are secrets."""
    if peer.public_key.value == tunnel.private_key.value.reveal():
        findings.wrong(
            peer.public_key.origin.where,
            "the public key is your private key; write the server's public key",
        )
    shared = peer.preshared_key.value
    if shared and shared.reveal() == peer.public_key.value:
        findings.wrong(
            peer.preshared_key.origin.where,
            "the preshared key is the server's public key; write the one that your provider gives, "
            "or none",
        )
    if shared == tunnel.private_key.value:
        findings.wrong(
            peer.preshared_key.origin.where,
            "the preshared key is your private key; write the one that your provider gives, or "
            "none",
        )


def _check_peers(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse peers of one tunnel that want the same traffic."""
    for one, other in combinations(tunnel.peers, 2):
        if one.public_key.value == other.public_key.value:
            findings.wrong(
                other.public_key.origin.where,
                "two peers have the same PublicKey; make them one [Peer]",
            )
        for mine in one.allowed_ips.value:
            for its in other.allowed_ips.value:
                if mine.overlaps(its):
                    findings.wrong(
                        other.allowed_ips.origin.where,
                        f"AllowedIPs {mine} and {its} of two peers overlap; several peers are one "
                        "tunnel only when each has destinations of its own. If they are servers "
                        "to choose from, make a file of each",
                    )


def _tell_coverage(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Tell which destinations do not go into the tunnel, and are refused for it."""
    allowed = _allowed(tunnel)
    for version in (4, 6):
        if not tunnel.tunnel.has_family(version):
            findings.tell(
                tunnel.addresses.origin.where,
                f"the tunnel has no IPv{version} address, so that IPv{version} is refused",
            )
        elif not covers_family(allowed, version):
            of_family = [network for network in allowed if network.version == version]
            findings.warn(
                tunnel.peers[0].allowed_ips.origin.where,
                f"AllowedIPs: of IPv{version}, {joined(of_family) or 'nothing'} goes into the "
                "tunnel; everything else is refused",
            )


def _allowed(tunnel: SourcedTunnel) -> tuple[Network, ...]:
    return tuple(network for peer in tunnel.peers for network in peer.allowed_ips.value)


def outbound_subnets(
    given: Sourced[tuple[Network, ...]] | None, findings: Findings
) -> tuple[Network, ...]:
    """Return the subnets outside the tunnel, merged and told where they overlap."""
    return simplified(given.value, given.origin.where, findings) if given else ()


def ports(
    given: Sourced[tuple[PortRange, ...]] | None, findings: Findings
) -> tuple[PortRange, ...]:
    """Return ports in order, overlapping ranges merged and told."""
    merged: list[PortRange] = []
    for entry in sorted(given.value) if given else ():
        last = merged[-1] if merged else None
        if given and last and last.protocol is entry.protocol and entry.first <= last.last:
            whole = PortRange(last.protocol, last.first, max(last.last, entry.last))
            findings.tell(given.origin.where, f"{last} and {entry} overlap; read as {whole}")
            merged[-1] = whole
        else:
            merged.append(entry)
    return tuple(merged)


def lan_against_tunnel(
    subnets: Sequence[Network], tunnel: SourcedTunnel, where: str, findings: Findings
) -> None:
    """Refuse a subnet outside with an address of the tunnel in it; tell what else is in both."""
    allowed = [one for one in _allowed(tunnel) if one.prefixlen]
    for subnet in subnets:
        for address in tunnel.addresses.value:
            if address.ip in subnet:
                findings.wrong(
                    where,
                    f"{subnet} holds the tunnel's own address {address.ip}, and traffic of the "
                    "tunnel would go outside it; list narrower subnets",
                )
        for endpoint in tunnel.tunnel.endpoints:
            if endpoint.address in subnet:
                findings.tell(
                    where, f"the server {endpoint} stands in {subnet}, outside the tunnel; fine"
                )
        both = [network for network in allowed if network.overlaps(subnet)]
        if both:
            findings.warn(
                where,
                f"{subnet} is in AllowedIPs too ({joined(both)}); it is reached outside the tunnel",
            )


def resolvers(tunnel: SourcedTunnel, subnets: Sequence[Network], findings: Findings) -> None:
    """Refuse a resolver of the tunnel in a subnet outside it; tell of one that nobody can reach.

    A resolver in a subnet outside is meant when `DNS_ADDRESS` names it. The file's resolver, or
    one in the tunnel's own network, belongs to the tunnel.
    """
    where, allowed = tunnel.dns.origin.where, _allowed(tunnel)
    from_file = tunnel.dns.origin.kind is Kind.WG_QUICK
    if len(tunnel.dns.value) > _ASKED_RESOLVERS:
        findings.tell(where, f"only the first {_ASKED_RESOLVERS} resolvers are asked")
    for server in tunnel.dns.value:
        subnet = next((one for one in subnets if server in one), None)
        inside = any(server in address.network for address in tunnel.addresses.value)
        if subnet and (from_file or inside):
            findings.wrong(
                "FIREWALL_OUTBOUND_SUBNETS",
                f"{subnet} holds the tunnel's resolver {server}, which would be asked outside the "
                "tunnel; list narrower subnets, or set DNS_ADDRESS if it is meant to be at home",
            )
        elif subnet:
            findings.warn(
                where,
                f"the resolver {server} stands in {subnet}, outside the tunnel: whoever runs it "
                "sees every name that is looked up, and asks further by its own connection",
            )
        elif not server.is_loopback and not tunnel.tunnel.has_family(server.version):
            findings.warn(
                where,
                f"the resolver {server} cannot be reached, because the tunnel has no "
                f"IPv{server.version} address; name one of the other family",
            )
        elif not server.is_loopback and not any(server in network for network in allowed):
            findings.warn(where, f"the resolver {server} cannot be reached; add it to AllowedIPs")


def health_server(server: HostPort, input_ports: Sequence[PortRange], findings: Findings) -> None:
    """Tell when the health server listens for others, and no rule lets them in."""
    local = server.host.startswith("127.") or server.host == "::1"
    listed = any(
        entry.protocol is Protocol.TCP and entry.first <= server.port <= entry.last
        for entry in input_ports
    )
    if not local and not listed:
        findings.tell(
            "HEALTH_SERVER_ADDRESS",
            f"port {server.port} answers in this namespace only, until FIREWALL_INPUT_PORTS lists "
            f"{server.port}/tcp",
        )


def listen_port(
    tunnel: SourcedTunnel, input_ports: Sequence[PortRange], where: str, findings: Findings
) -> None:
    """Refuse to open the port of WireGuard itself."""
    port = tunnel.listen_port.value
    for entry in input_ports:
        if entry.protocol is Protocol.UDP and entry.first <= port <= entry.last:
            findings.wrong(
                where,
                f"{entry} holds the tunnel's own port {port}/udp, where a client needs nobody to "
                "call; leave that out, or set another ListenPort in wg0.conf",
            )


def probe_outside(
    probe: HealthProbe | None, subnets: Sequence[Network], findings: Findings
) -> None:
    """Refuse to ask somebody outside the tunnel whether the tunnel is alive."""
    address = probe.address if probe else None
    if address and any(address in subnet for subnet in subnets):
        findings.wrong(
            "HEALTH_PROBE",
            f"{address} is in FIREWALL_OUTBOUND_SUBNETS, outside the tunnel, and says nothing of "
            "it; name somebody inside",
        )


def probe_inside(
    probe: HealthProbe | None,
    tunnel: SourcedTunnel,
    subnets: Sequence[Network],
    findings: Findings,
) -> None:
    """Refuse to ask somebody whom the tunnel does not reach; tell when there is nobody to ask."""
    if probe is None or probe.kind in {ProbeKind.AUTO, ProbeKind.OFF}:
        return
    allowed, has_family = _allowed(tunnel), tunnel.tunnel.has_family
    if probe.address is None:
        if not any(
            any(server in network for network in allowed)
            and not server.is_loopback
            and has_family(server.version)
            and not any(server in subnet for subnet in subnets)
            for server in tunnel.dns.value
        ):
            findings.warn(
                "HEALTH_PROBE",
                f"{probe.kind} has nobody to ask, because DNS_ADDRESS names no resolver in the "
                "tunnel; name one, or write icmp:ADDRESS",
            )
    elif any(probe.address == address.ip for address in tunnel.addresses.value):
        findings.wrong(
            "HEALTH_PROBE", f"{probe.address} is the tunnel's own address; name somebody else"
        )
    elif not has_family(probe.address.version) or not any(
        probe.address in network for network in allowed
    ):
        findings.wrong(
            "HEALTH_PROBE",
            f"{probe.address} is not reached through the tunnel, by its AllowedIPs and addresses; "
            "name somebody who is",
        )
