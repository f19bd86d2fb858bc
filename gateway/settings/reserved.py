"""Checks that nothing has an address of the link between the gateway's namespace and a vault.

In every layout: which one it is follows from the containers, and no provider gives such an address.
A listed subnet may be larger, such as 169.254.0.0/16: what is in both is then not reached.
"""

from collections.abc import Sequence

from gateway.model import PASSAGE, Address, Network
from gateway.settings.findings import Findings
from gateway.settings.tunnels import SourcedTunnel

_TAKEN = "which the link between the gateway and a vault has"


def check_tunnel(tunnel: SourcedTunnel, findings: Findings) -> None:
    """Refuse such an address of the tunnel's own, and such a resolver."""
    for address in tunnel.addresses.value:
        _check_address(address.ip, tunnel.addresses.origin.where, findings)
    for server in tunnel.dns.value:
        _check_address(server, tunnel.dns.origin.where, findings)


def check_subnets(subnets: Sequence[Network], where: str, findings: Findings) -> None:
    """Refuse a listed subnet that has no other addresses."""
    for subnet in subnets:
        for network in PASSAGE:
            if subnet[0] in network and subnet.prefixlen >= network.prefixlen:
                findings.problem(where, f"{subnet} is in {network}, {_TAKEN}; leave it out")


def _check_address(address: Address, where: str, findings: Findings) -> None:
    for network in PASSAGE:
        if address in network:
            findings.problem(where, f"{address} is in {network}, {_TAKEN}; write another address")
