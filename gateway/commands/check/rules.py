"""The rules of each state of a configuration, in the syntax of either firewall."""

from ipaddress import ip_address, ip_interface, ip_network

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.xtables import render as render_iptables
from gateway.model import Config, Facts, Route, Uplink
from gateway.policy.examples import DRAWN_MARK, NOT_YET_KNOWN, each_state
from gateway.policy.firewall import ruleset_for
from gateway.policy.rules import Family

EXAMPLE = Facts(
    uplinks=(
        Uplink("eth0", 2, 1500, (ip_interface("172.17.0.2/16"), ip_interface("fd00:17::2/64"))),
    ),
    routes=(
        Route(ip_network("0.0.0.0/0"), "eth0", ip_address("172.17.0.1")),
        Route(ip_network("172.17.0.0/16"), "eth0"),
        Route(ip_network("::/0"), "eth0", ip_address("fd00:17::1")),
        Route(ip_network("fd00:17::/64"), "eth0"),
    ),
)
"""A namespace as Docker makes it, with both families, for rules shown without looking at one."""


def rules_of(config: Config, syntax: str) -> str:
    """Return the rules of each state as they would be in a container on Docker's own network."""
    own = " and ".join(str(address.ip) for address in EXAMPLE.uplinks[0].addresses)
    parts = [f"The rules of each state, in a container with the addresses {own} on eth0."]
    if any(tunnel.names for tunnel in config.tunnels):
        parts.append(f"{NOT_YET_KNOWN} represents the address that a server's name resolves to.")
    if any(tunnel.fwmark is None for tunnel in config.tunnels):
        parts.append(f"The firewall mark {DRAWN_MARK:#x} is an example; each start draws its own.")
    for title, state in each_state(config):
        ruleset = ruleset_for(state, config, EXAMPLE)
        parts.append(f"\n# {title}")
        if syntax == "nftables":
            parts.append(render_nftables.render(ruleset))
        else:
            parts += [
                f"# IPv{family.value}\n{render_iptables.render(ruleset, family)}"
                for family in Family
            ]
    return "\n".join(parts)
