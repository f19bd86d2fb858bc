"""What has to fit together: within one tunnel, and across subnets, resolvers and servers."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from gateway.model import (
    Address,
    HealthProbe,
    HostPort,
    Network,
    Peer,
    PortRange,
    ProbeKind,
    Protocol,
    Tunnel,
)
from gateway.settings.addresses import covers_family, simplified, tell_host_bits
from gateway.settings.findings import Findings, joined
from gateway.settings.picking import Picker
from gateway.settings.sources import Variables

_SUBNETS: Final = "firewall_outbound_subnets"
_FIRST_IPV6_MTU: Final = 1280
_ASKED_RESOLVERS: Final = 3  # MAXNS, resolv.conf(5)


def check_tunnel(tunnel: Tunnel, pick: Picker) -> None:
    """Refuse what contradicts itself within one tunnel; tell what it does not carry."""
    findings = pick.findings
    if tunnel.has_family(6) and tunnel.mtu is not None and tunnel.mtu < _FIRST_IPV6_MTU:
        findings.wrong(
            pick.place("WIREGUARD_MTU"),
            f"an MTU of {tunnel.mtu} is too small for the tunnel's IPv6 address; write at least "
            f"{_FIRST_IPV6_MTU}, or leave the IPv6 address out",
        )
    own = {address.ip for address in tunnel.addresses}
    for endpoint in tunnel.endpoints:
        if endpoint.address in own:
            findings.wrong(
                pick.server_place("WIREGUARD_ENDPOINT_IP"),
                f"the server's address {endpoint.address} is the tunnel's own; write the address "
                "at which the internet reaches the server",
            )
    for peer in tunnel.peers:
        _check_keys(peer, tunnel, pick)
    _check_peers(tunnel, pick)
    _tell_coverage(tunnel, pick)


def _check_keys(peer: Peer, tunnel: Tunnel, pick: Picker) -> None:
    """Refuse one key in two places: a public key is shown, and the other two are secrets."""
    if peer.public_key == tunnel.private_key.reveal():
        pick.findings.wrong(
            pick.server_place("WIREGUARD_PUBLIC_KEY"),
            "the public key is your private key; write the server's public key",
        )
    if peer.preshared_key and peer.preshared_key.reveal() == peer.public_key:
        pick.findings.wrong(
            pick.place("WIREGUARD_PRESHARED_KEY"),
            "the preshared key is the server's public key; write the one that your provider gives, "
            "or none",
        )
    if peer.preshared_key == tunnel.private_key:
        pick.findings.wrong(
            pick.place("WIREGUARD_PRESHARED_KEY"),
            "the preshared key is your private key; write the one that your provider gives, or "
            "none",
        )


def _check_peers(tunnel: Tunnel, pick: Picker) -> None:
    """Refuse peers of one tunnel that want the same traffic."""
    where = pick.place("WIREGUARD_ALLOWED_IPS")
    for one, other in combinations(tunnel.peers, 2):
        if one.public_key == other.public_key:
            pick.findings.wrong(where, "two peers have the same PublicKey; make them one [Peer]")
        for mine in one.allowed_ips:
            for its in other.allowed_ips:
                if mine.overlaps(its):
                    pick.findings.wrong(
                        where,
                        f"AllowedIPs {mine} and {its} of two peers overlap; several peers are one "
                        "tunnel only when each has destinations of its own. If they are servers "
                        "to choose from, make a file of each",
                    )


def _tell_coverage(tunnel: Tunnel, pick: Picker) -> None:
    """Tell which destinations do not go into the tunnel, and are refused for it."""
    allowed = tuple(network for peer in tunnel.peers for network in peer.allowed_ips)
    for version in (4, 6):
        if not tunnel.has_family(version):
            pick.findings.tell(
                pick.place("WIREGUARD_ADDRESSES"),
                f"the tunnel has no IPv{version} address, so that IPv{version} is refused",
            )
        elif not covers_family(allowed, version):
            of_family = [network for network in allowed if network.version == version]
            pick.findings.warn(
                pick.place("WIREGUARD_ALLOWED_IPS"),
                f"AllowedIPs: of IPv{version}, {joined(of_family) or 'nothing'} goes into the "
                "tunnel; everything else is refused",
            )


def outbound_subnets(variables: Variables, findings: Findings) -> tuple[Network, ...]:
    """Return the subnets outside the tunnel, merged and told where they overlap."""
    where = variables.where(_SUBNETS)
    networks = variables.values.firewall_outbound_subnets or ()
    if networks:
        tell_host_bits(variables.given[_SUBNETS].text.reveal(), where, findings)
    return simplified(networks, where, findings)


def ports(name: str, variables: Variables, findings: Findings) -> tuple[PortRange, ...]:
    """Return the ports of the variable `name` in order, overlapping ranges merged and told."""
    merged: list[PortRange] = []
    given: tuple[PortRange, ...] = getattr(variables.values, name) or ()
    for entry in sorted(given):
        last = merged[-1] if merged else None
        if last and last.protocol is entry.protocol and entry.first <= last.last:
            whole = PortRange(last.protocol, last.first, max(last.last, entry.last))
            findings.tell(variables.where(name), f"{last} and {entry} overlap; read as {whole}")
            merged[-1] = whole
        else:
            merged.append(entry)
    return tuple(merged)


def lan_against_tunnel(
    subnets: Sequence[Network], tunnel: Tunnel, where: str, findings: Findings
) -> None:
    """Refuse a subnet outside with an address of the tunnel in it; tell what else is in both."""
    allowed = [one for peer in tunnel.peers for one in peer.allowed_ips if one.prefixlen]
    for subnet in subnets:
        for address in tunnel.addresses:
            if address.ip in subnet:
                findings.wrong(
                    where,
                    f"{subnet} holds the tunnel's own address {address.ip}, and traffic of the "
                    "tunnel would go outside it; list narrower subnets",
                )
        for endpoint in tunnel.endpoints:
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


def resolvers(
    dns: Sequence[Address],
    subnets: Sequence[Network],
    tunnel: Tunnel,
    findings: Findings,
    *,
    where: str,
    from_file: bool,
) -> None:
    """Refuse a resolver of the tunnel in a subnet outside it; tell of one that nobody can reach.

    A resolver in a subnet outside is meant when `DNS_ADDRESS` names it. The file's resolver, or
    one in the tunnel's own network, belongs to the tunnel.
    """
    allowed = [network for peer in tunnel.peers for network in peer.allowed_ips]
    if len(dns) > _ASKED_RESOLVERS:
        findings.tell(where, f"only the first {_ASKED_RESOLVERS} resolvers are asked")
    for server in dns:
        subnet = next((one for one in subnets if server in one), None)
        inside = any(server in address.network for address in tunnel.addresses)
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
        elif not server.is_loopback and not tunnel.has_family(server.version):
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
    tunnel: Tunnel, input_ports: Sequence[PortRange], where: str, findings: Findings
) -> None:
    """Refuse to open the port of WireGuard itself."""
    for ports in input_ports:
        if ports.protocol is Protocol.UDP and ports.first <= tunnel.listen_port <= ports.last:
            findings.wrong(
                where,
                f"{ports} holds the tunnel's own port {tunnel.listen_port}/udp, where a client "
                "needs nobody to call; leave that out, or set another ListenPort in wg0.conf",
            )


def probe_outside(
    wanted: HealthProbe | None, subnets: Sequence[Network], findings: Findings
) -> None:
    """Refuse to ask somebody outside the tunnel whether the tunnel is alive."""
    address = wanted.address if wanted else None
    if address and any(address in subnet for subnet in subnets):
        findings.wrong(
            "HEALTH_PROBE",
            f"{address} is in FIREWALL_OUTBOUND_SUBNETS, outside the tunnel, and says nothing of "
            "it; name somebody inside",
        )


def probe_inside(
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
