"""Whether the resolver that workloads get can answer, as far as a compose file shows."""

import re
from collections.abc import Sequence
from typing import Final

from gateway.commands.check.advice import Advice
from gateway.commands.check.service import Service
from gateway.model import Address
from gateway.settings import addresses
from gateway.settings.compat import OFF
from gateway.settings.findings import Findings
from gateway.settings.schema import names_of
from gateway.settings.values import unquoted

VARIABLE: Final = "DNS_ADDRESS"
SWITCH: Final = "DNS_SERVER"

_RESOLVER: Final = re.compile(
    r"pi-?hole|adguard|unbound|dnscrypt|dnsmasq|coredns|blocky|technitium|bind9?\b|knot|powerdns|"
    r"cloudflared|stubby|dnsdist|smartdns|mosdns|\bdns\b",
    re.IGNORECASE,
)
"""Images and names of resolvers."""


def check_resolver(service: Service, where: str, findings: Findings, advice: Advice) -> None:
    """Report a resolver on loopback that none of the services can be, or that has no port left."""
    if not any(server.is_loopback for server in _resolvers(service)):
        return
    joining = [one for one in service.neighbours if one.joins]
    found = [it.name for it in joining if _RESOLVER.search(f"{it.name} {it.image}")]
    if not _is_switched_off(service):
        if found:
            findings.warn(
                where,
                f"the gateway's own resolver has port 53 of 127.0.0.1; if {found[0]} is to be the "
                f"resolver, set {SWITCH}=off",
            )
            advice.variables[SWITCH] = "off"
    elif not found:
        findings.warn(
            where,
            f"{VARIABLE} is an address of loopback, but no service that shares this network looks "
            "like a resolver, so no name resolves; remove it if your WireGuard file has DNS, or "
            "write your provider's resolver",
        )
        advice.unset.append(VARIABLE)


def _is_switched_off(service: Service) -> bool:
    """Return whether the gateway is to have no resolver of its own."""
    values = [service.variables.get(name, "") for name in names_of(SWITCH.lower())]
    return any(unquoted(it.strip()).lower() in OFF for it in values if it.strip())


def _resolvers(service: Service) -> Sequence[Address]:
    try:
        return addresses.resolvers(unquoted(service.variables.get(VARIABLE, "").strip()))
    except ValueError:
        return ()
