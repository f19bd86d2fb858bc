"""The rules of each state of a configuration, in the syntax of either firewall."""

from ipaddress import ip_address, ip_interface, ip_network

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.nft.firewall import HIJACK
from gateway.firewall.nft.hijack import render_redirection
from gateway.firewall.nft.render import transaction
from gateway.firewall.nft.translation import TABLE as TRANSLATION
from gateway.firewall.nft.translation import render_translation
from gateway.firewall.xtables import render as render_iptables
from gateway.model import Config
from gateway.policy.examples import DRAWN_MARK, NOT_YET_KNOWN, each_state
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.passage import divided, inner_end
from gateway.policy.rules import Family, Ruleset
from gateway.policy.translation import translation_for
from gateway.policy.wanted import Vault, wanted_in

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


VAULT = Vault(inner_end((4, 6)))
"""A vault whose gateway can forward both families."""


def rules_of(config: Config, syntax: str, *, with_vault: bool = False) -> str:
    """Return the rules of each state as they would be in a container on Docker's own network.

    `with_vault` shows those of both namespaces.
    """
    own = " and ".join(str(address.ip) for address in EXAMPLE.uplinks[0].addresses)
    parts = [f"The rules of each state, in a container with the addresses {own} on eth0."]
    if any(tunnel.names for tunnel in config.tunnels):
        parts.append(f"{NOT_YET_KNOWN} represents the address that a server's name resolves to.")
    if any(tunnel.fwmark is None for tunnel in config.tunnels):
        parts.append(f"The firewall mark {DRAWN_MARK:#x} is an example; each start draws its own.")
    for title, state in each_state(config):
        wanted = wanted_in(state, config, EXAMPLE, vault=VAULT if with_vault else None)
        parts.append(f"\n# {title}")
        parts += _rendered(wanted.rules, syntax)
        if wanted.redirection:
            parts.append(f"\n# {title}: questions for other resolvers")
            parts.append(transaction(HIJACK, render_redirection(wanted.redirection)))
        if wanted.inside:
            parts.append(f"\n# {title}: the vault")
            parts += _rendered(wanted.inside.rules, "nftables")
    if with_vault:
        moved = translation_for(divided(config)[0], EXAMPLE, VAULT.hole)
        parts.append("\n# In each state: the translation of addresses, next to the gateway's rules")
        parts.append(transaction(TRANSLATION, render_translation(moved)))
    return "\n".join(parts)


def _rendered(ruleset: Ruleset, syntax: str) -> list[str]:
    if syntax == "nftables":
        return [render_nftables.render(ruleset)]
    return [f"# IPv{family.value}\n{render_iptables.render(ruleset, family)}" for family in Family]
