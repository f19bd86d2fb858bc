"""Checks of values against each other: within one tunnel, and across ports and servers."""

from collections.abc import Sequence
from ipaddress import ip_network
from itertools import combinations
from typing import Final

from gateway.model import Address, HealthProbe, HostPort, Network, PortRange, ProbeKind, Protocol
from gateway.settings.addresses import covers_family
from gateway.settings.findings import Findings, joined
from gateway.settings.keys import are_pair
from gateway.settings.sourced import Kind, Sourced
from gateway.settings.tunnels import SourcedPeer, SourcedTunnel

_FIRST_IPV6_MTU: Final = 1280
_LAST_PORT: Final = 65535
_PAIR: Final = 2
"""Addresses of a network that may all be used (RFC 3021)."""
_ASKED_RESOLVERS: Final = 3  # MAXNS, resolv.conf(5)

_HOMES: Final = (ip_network("192.168.0.0/16"), ip_network("fd00::/8"))
"""Where home networks are, and resolvers of providers are not."""


def check_tunnel(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse a tunnel that contradicts itself; report what it does not carry."""
    mtu = tunnel.mtu.value
    if mtu is not None and mtu < _FIRST_IPV6_MTU and tunnel.tunnel.has_family(6):
        findings.problem(
            tunnel.mtu.origin.where,
            f"an MTU of {mtu} is too small for the tunnel's IPv6 address; write at least "
            f"{_FIRST_IPV6_MTU}, or leave the IPv6 address out",
        )
    own = {address.ip for address in tunnel.addresses.value}
    for address in tunnel.addresses.value:
        whole = address.network
        if address.ip == whole.network_address and whole.num_addresses > _PAIR:
            findings.warn(
                tunnel.addresses.origin.where,
                f"{address} is a whole network; write the tunnel's own address in it",
            )
    for peer in tunnel.peers:
        if peer.server.host.value in own:
            findings.problem(
                peer.server.host.origin.where,
                f"the server's address {peer.server.host.value} is the tunnel's own; write the "
                "address at which the internet reaches the server",
            )
        _check_keys(peer, tunnel, findings)
    for server in tunnel.dns.value:
        if server in own:
            findings.problem(
                tunnel.dns.origin.where,
                f"the resolver {server} is the tunnel's own address, where no server answers; "
                "write your provider's resolver",
            )
    _check_peers(tunnel, findings)
    _report_coverage(tunnel, findings)


def _check_keys(peer: SourcedPeer, tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse the same key in two roles: a public key is shown, the other two are secrets."""
    if peer.public_key.value == tunnel.private_key.value.reveal():
        findings.problem(
            peer.public_key.origin.where,
            "the public key is your private key; write the server's public key",
        )
    elif are_pair(tunnel.private_key.value, peer.public_key.value):
        findings.problem(
            peer.public_key.origin.where,
            "the public key is your own: it belongs to your private key; write the server's public "
            "key",
        )
    shared = peer.preshared_key.value
    if shared and shared.reveal() == peer.public_key.value:
        findings.problem(
            peer.preshared_key.origin.where,
            "the preshared key is the server's public key; write the one that your provider gives, "
            "or none",
        )
    if shared == tunnel.private_key.value:
        findings.problem(
            peer.preshared_key.origin.where,
            "the preshared key is your private key; write the one that your provider gives, or "
            "none",
        )


def _check_peers(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse peers of one tunnel with the same key or overlapping destinations."""
    for one, other in combinations(tunnel.peers, 2):
        if one.public_key.value == other.public_key.value:
            findings.problem(
                other.public_key.origin.where,
                "two peers have the same PublicKey; merge them into one [Peer]",
            )
        for mine in one.allowed_ips.value:
            for its in other.allowed_ips.value:
                if mine.overlaps(its):
                    findings.problem(
                        other.allowed_ips.origin.where,
                        f"AllowedIPs {mine} and {its} of two peers overlap; several peers can "
                        "share a tunnel only if their destinations differ. If they are alternative "
                        "servers, put each in a file of its own",
                    )


def _report_coverage(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Report the destinations that do not go into the tunnel and are therefore refused."""
    allowed = tunnel.allowed_ips
    for version in (4, 6) if tunnel.addresses.value else ():
        if not tunnel.tunnel.has_family(version):
            findings.info(
                tunnel.addresses.origin.where,
                f"the tunnel has no IPv{version} address, so IPv{version} is refused",
            )
        elif not covers_family(allowed, version):
            of_family = [network for network in allowed if network.version == version]
            findings.warn(
                tunnel.peers[0].allowed_ips.origin.where,
                f"AllowedIPs: only {joined(of_family)} goes into the tunnel; all other "
                f"IPv{version} traffic is refused"
                if of_family
                else f"AllowedIPs: no IPv{version} traffic goes into the tunnel; it is refused",
            )


def ports(
    given: Sourced[tuple[PortRange, ...]] | None, findings: Findings
) -> tuple[PortRange, ...]:
    """Return the ports in order; overlapping ranges are merged and reported."""
    merged: list[PortRange] = []
    for entry in sorted(given.value) if given else ():
        last = merged[-1] if merged else None
        if given and last and last.protocol is entry.protocol and entry.first <= last.last:
            whole = PortRange(last.protocol, last.first, max(last.last, entry.last))
            findings.info(given.origin.where, f"{last} and {entry} overlap; read as {whole}")
            merged[-1] = whole
        else:
            merged.append(entry)
    return tuple(merged)


def last_port(input_ports: Sequence[PortRange], where: str, findings: Findings) -> None:
    """Refuse the last port: the kernel has no policy rule for its answers.

    Source: net/core/fib_rules.c, fib_rule_port_range_valid.
    """
    for entry in input_ports:
        if entry.last == _LAST_PORT:
            findings.problem(
                where,
                f"{entry} contains port {_LAST_PORT}, whose answers the kernel cannot route; list "
                f"ports up to {_LAST_PORT - 1}",
            )


def resolvers(tunnel: SourcedTunnel, subnets: Sequence[Network], findings: Findings) -> None:
    """Refuse a resolver of the tunnel in a subnet outside it; report those that may not answer.

    A resolver outside the tunnel is intended when `DNS_ADDRESS` names it. The resolver of the file,
    or one in the tunnel's own network, belongs to the tunnel.
    """
    where, allowed = tunnel.dns.origin.where, tunnel.allowed_ips
    if len(tunnel.dns.value) > _ASKED_RESOLVERS:
        findings.info(where, f"only the first {_ASKED_RESOLVERS} resolvers are used")
    for server in tunnel.dns.value:
        subnet = next((one for one in subnets if server in one), None)
        if subnet and is_of_tunnel(server, tunnel):
            findings.problem(
                "FIREWALL_OUTBOUND_SUBNETS",
                f"{subnet} contains the tunnel's resolver {server}, so its queries would leave "
                "outside the tunnel; list narrower subnets, or set DNS_ADDRESS if the resolver "
                "is on your own network",
            )
        elif subnet:
            findings.warn(
                where,
                f"the resolver {server} is in {subnet}, outside the tunnel: its operator sees "
                "every name that is looked up, and it forwards queries over its own connection",
            )
        elif server.is_loopback:
            findings.info(
                where,
                f"the resolver {server} is none of the gateway's: a container that shares this "
                "network has to run one, or no name resolves",
            )
        elif tunnel.addresses.value and not tunnel.tunnel.has_family(server.version):
            findings.warn(
                where,
                f"the resolver {server} cannot be reached, because the tunnel has no "
                f"IPv{server.version} address; use one of the other family",
            )
        elif not any(server in network for network in allowed):
            findings.warn(where, f"the resolver {server} cannot be reached; add it to AllowedIPs")
        elif any(server in home for home in _HOMES) and not is_of_tunnel(server, tunnel):
            findings.warn(
                where,
                f"the resolver {server} looks like one of a home network, but is asked through the "
                f"tunnel; list it in FIREWALL_OUTBOUND_SUBNETS if it is, or write your provider's",
            )


def is_of_tunnel(server: Address, tunnel: SourcedTunnel) -> bool:
    """Whether a resolver belongs to the tunnel: the file's, the provider's, one in its network."""
    given_with_it = tunnel.dns.origin.kind in (Kind.WG_QUICK, Kind.DEFAULT)
    return given_with_it or any(server in address.network for address in tunnel.addresses.value)


def health_server(server: HostPort, input_ports: Sequence[PortRange], findings: Findings) -> None:
    """Report a health server that listens for others while no rule lets them in."""
    local = server.host.startswith("127.") or server.host == "::1"
    listed = any(
        entry.protocol is Protocol.TCP and entry.first <= server.port <= entry.last
        for entry in input_ports
    )
    if not local and not listed:
        findings.info(
            "HEALTH_SERVER_ADDRESS",
            f"port {server.port} can be reached only from this namespace until "
            f"FIREWALL_INPUT_PORTS lists {server.port}/tcp",
        )


def endpoint_resolver(
    given: Sourced[Address] | None, tunnel: SourcedTunnel, findings: Findings
) -> None:
    """Refuse to look the server's name up at the tunnel's own address."""
    if given and any(given.value == address.ip for address in tunnel.addresses.value):
        findings.problem(
            given.origin.where,
            f"{given.value} is the tunnel's own address, but the server's name is looked up before "
            "there is a tunnel; write a resolver that is reached without it",
        )


def listen_port(
    tunnel: SourcedTunnel, input_ports: Sequence[PortRange], where: str, findings: Findings
) -> None:
    """Refuse to open WireGuard's own port."""
    port = tunnel.listen_port.value
    for entry in input_ports:
        if entry.protocol is Protocol.UDP and entry.first <= port <= entry.last:
            findings.problem(
                where,
                f"{entry} contains the tunnel's own port {port}/udp, which a client does not "
                "need to open; leave it out, or set another ListenPort in wg0.conf",
            )


def probe_outside(
    probe: HealthProbe | None, subnets: Sequence[Network], findings: Findings
) -> None:
    """Refuse a probe to an address outside the tunnel, whose answer proves nothing."""
    address = probe.address if probe else None
    if address and any(address in subnet for subnet in subnets):
        findings.problem(
            "HEALTH_PROBE",
            f"{address} is in FIREWALL_OUTBOUND_SUBNETS, outside the tunnel, so its answer says "
            "nothing about the tunnel; use an address inside",
        )


def probe_inside(
    probe: HealthProbe | None,
    tunnel: SourcedTunnel,
    subnets: Sequence[Network],
    findings: Findings,
) -> None:
    """Refuse a probe that the tunnel does not reach; report a probe without a target."""
    if probe is None or probe.kind in {ProbeKind.AUTO, ProbeKind.OFF}:
        return
    allowed, has_family = tunnel.allowed_ips, tunnel.tunnel.has_family
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
                f"{probe.kind} has no target, because DNS_ADDRESS names no resolver in the "
                "tunnel; name one, or write icmp:ADDRESS",
            )
    elif any(probe.address == address.ip for address in tunnel.addresses.value):
        findings.problem(
            "HEALTH_PROBE", f"{probe.address} is the tunnel's own address; use another address"
        )
    elif not has_family(probe.address.version) or not any(
        probe.address in network for network in allowed
    ):
        findings.problem(
            "HEALTH_PROBE",
            f"{probe.address} cannot be reached through the tunnel with its AllowedIPs and "
            "addresses; use one that can",
        )
