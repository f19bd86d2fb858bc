"""Names that look like ours and are not: which variable was meant."""

from difflib import get_close_matches
from typing import Final

from gateway.settings.findings import Findings
from gateway.settings.values import named

MEANT: Final = {
    "WIREGUARD_DNS": "DNS_ADDRESS",
    "DNS_SERVER_ADDRESS": "DNS_ADDRESS",
    "VPN_NAMESERVERS": "DNS_ADDRESS",
    "WIREGUARD_PORT": "WIREGUARD_ENDPOINT_PORT",
    "WIREGUARD_CONF": "WIREGUARD_CONF_SECRETFILE",
    "WIREGUARD_CONFIG": "WIREGUARD_CONF_SECRETFILE",
    "WIREGUARD_CUSTOM_CONFIG": "WIREGUARD_CONF_SECRETFILE",
    "VPN_CONF": "WIREGUARD_CONF_SECRETFILE",
    "WIREGUARD_KEEPALIVE": "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL",
    "VPN_IP": "WIREGUARD_ENDPOINT_IP",
    "VPN_LAN_NETWORK": "FIREWALL_OUTBOUND_SUBNETS",
    "VPN_EXPOSE_PORTS_ON_LAN": "FIREWALL_INPUT_PORTS",
}
"""Names that people write, whose nearest in spelling is not what they mean."""

_OURS: Final = ("WIREGUARD_", "FIREWALL_", "VPN_", "DNS_", "HEALTH_", "LOG_", "GATEWAY_")
_NEAR: Final = 0.86
_NEAR_OURS: Final = 0.75


def check(name: str, known: frozenset[str], findings: Findings) -> None:
    """Refuse a name that begins like ours, or is nearly one of `known`, with the one meant."""
    upper = name.upper()
    of_file = upper.strip("_").endswith(("SECRETFILE", "SECRET_FILE"))
    current = [one for one in sorted(known) if one.endswith("_SECRETFILE") == of_file]
    meant = MEANT.get(upper) or _nearest(upper, current)
    if meant:
        findings.wrong(named(name), f"unknown; did you mean {meant}?")
    elif upper.startswith(_OURS):
        findings.wrong(named(name), "unknown; docs/configuration.md lists all variables")


def _nearest(name: str, known: list[str]) -> str | None:
    """Return what `name` is a slip of: a long prefix in common makes no two names alike."""
    prefix = next(filter(name.startswith, _OURS), "")
    rests = [one.removeprefix(prefix) for one in known if one.startswith(prefix)]
    if prefix and (
        near := get_close_matches(name.removeprefix(prefix), rests, n=1, cutoff=_NEAR_OURS)
    ):
        return prefix + near[0]
    whole = get_close_matches(name, known, n=1, cutoff=_NEAR)
    return whole[0] if whole else None
