"""What has to fit together across the whole configuration: subnets, ports, resolvers, servers."""

from collections.abc import Sequence
from ipaddress import ip_interface, ip_network

from gateway.model import Address, Network, PortRange, Tunnel
from gateway.settings.findings import Findings, joined
from gateway.settings.networks import simplified
from gateway.settings.sources import Variables

_SUBNETS = "firewall_outbound_subnets"


def outbound_subnets(variables: Variables, findings: Findings) -> tuple[Network, ...]:
    """Return the subnets outside the tunnel, merged and told where they overlap."""
    where = variables.where(_SUBNETS)
    networks = variables.values.firewall_outbound_subnets or ()
    if _SUBNETS in variables.given:
        for entry in variables.given[_SUBNETS].text.reveal().split(","):
            _tell_host_bits(entry.strip(), where, findings)
    return simplified(networks, where, findings)


def _tell_host_bits(entry: str, where: str, findings: Findings) -> None:
    if "/" in entry:
        try:
            written, network = ip_interface(entry).ip, ip_network(entry, strict=False)
        except ValueError:
            return
        if written != network.network_address:
            findings.tell(where, f"{written}/{network.prefixlen} is read as {network}")


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
    """Refuse a subnet outside with an address of the tunnel in it; tell of a server in one."""
    for subnet in subnets:
        for address in tunnel.addresses:
            if address.ip in subnet:
                findings.wrong(
                    where,
                    f"{subnet} holds the tunnel's own address {address.ip}; traffic of the tunnel "
                    "would go outside it: list narrower subnets",
                )
        for endpoint in tunnel.endpoints:
            if endpoint.address in subnet:
                findings.tell(
                    where, f"the server {endpoint} stands in {subnet}, outside the tunnel; fine"
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
                f"the resolver {server} cannot be reached: the tunnel has no IPv{server.version} "
                "address; name one of the other family",
            )
        elif not server.is_loopback and not any(server in network for network in allowed):
            findings.warn(
                where,
                f"the resolver {server} cannot be reached: it is not in AllowedIPs "
                f"({joined(allowed)}); add it there",
            )
    if not dns:
        findings.warn(
            "DNS_ADDRESS",
            "is not set, so that no name resolves; write your provider's resolver, often shown as "
            "DNS in its WireGuard file. None is chosen for you: it would see every name",
        )
