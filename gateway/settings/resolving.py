"""Decides whether the gateway runs a resolver of its own, and which ones that asks for each tunnel.

The first that is there: `DNS_ADDRESS` or `DNS_UPSTREAM_PLAIN_ADDRESSES`; `DNS_UPSTREAM_RESOLVERS`,
if it is set; the tunnel's own resolver, of its wg-quick file or built in for its provider; the
default, over TLS.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Final

from gateway.errors import is_shortage
from gateway.model import (
    Network,
)
from gateway.model.name_server import DAY, BlockFile, NameServer, Upstream
from gateway.settings import names
from gateway.settings.files import inside
from gateway.settings.findings import Findings, joined
from gateway.settings.schema import Settings
from gateway.settings.sourced import Kind, Sourced
from gateway.settings.tunnels import SourcedTunnel
from gateway.settings.values import safe_quote

ONLY_WITH_SERVER: Final = (
    "dns_upstream_plain_addresses",
    "dns_upstream_resolvers",
    "dns_upstream_resolver_type",
    "dns_caching",
    "dns_rebinding_protection_exempt_hostnames",
    "dns_local_zones",
    "dns_block_files",
    "dns_block_urls",
    "dns_unblock_hostnames",
    "dns_dnssec",
    "dns_hijack",
)
"""Variables that say how the gateway's own resolver works."""

PLAIN_PORT: Final = 53


def settle(
    given: Settings, candidates: Sequence[SourcedTunnel], findings: Findings
) -> tuple[NameServer | None, tuple[SourcedTunnel, ...]]:
    """Return the gateway's own resolver or None, and the candidates with the ones that it asks."""
    if given.dns_server and not given.dns_server.value:
        for field in ONLY_WITH_SERVER:
            if value := getattr(given, field):
                findings.info(
                    value.origin.where,
                    "has no effect with DNS_SERVER=off, with which workloads ask the resolver of "
                    "DNS_ADDRESS themselves",
                )
        return None, tuple(candidates)
    upstreams = _upstreams(given)
    settled = tuple(_settled(given, tunnel, findings) for tunnel in candidates)
    for tunnel in settled:
        if not tunnel.dns.value:
            _check_reach(upstreams, tunnel, _where(given), findings)
    return (
        NameServer(
            upstreams,
            given.dns_rebinding_protection_exempt_hostnames.value
            if given.dns_rebinding_protection_exempt_hostnames
            else (),
            caching=given.dns_caching.value if given.dns_caching else True,
            local=given.dns_local_zones.value if given.dns_local_zones else (),
            lists=given.dns_block_urls.value if given.dns_block_urls else (),
            update_period=given.dns_update_period.value if given.dns_update_period else DAY,
            dnssec=given.dns_dnssec.value if given.dns_dnssec else False,
            unblocked=given.dns_unblock_hostnames.value if given.dns_unblock_hostnames else (),
            hijack=given.dns_hijack.value if given.dns_hijack else False,
        ),
        settled,
    )


def block_files(given: Settings, root: Path, findings: Findings) -> tuple[BlockFile, ...]:
    """Return the lists of blocked names as they are now; one that cannot be read is a problem."""
    found = []
    for path in given.dns_block_files.value if given.dns_block_files else ():
        try:
            status = inside(root, path).stat()
        except OSError as err:
            if is_shortage(err):
                raise
            reason = f"cannot be read ({err.strerror}); mount the file there"
        else:
            if S_ISREG(status.st_mode):
                found.append(BlockFile(str(path), status.st_size, status.st_mtime_ns))
                continue
            reason = "is not a file; mount a file there"
        findings.problem("DNS_BLOCK_FILES", f"{safe_quote(str(path))} {reason}")
    return tuple(found)


def check_local_zones(
    server: NameServer | None, subnets: Sequence[Network], findings: Findings
) -> None:
    """Refuse the resolver of a local zone that no listed subnet has: rules would reject it."""
    zones = server.local if server else ()
    for it in dict.fromkeys(it for zone in zones for it in zone.resolvers):
        if not any(it in subnet for subnet in subnets):
            findings.problem(
                "DNS_LOCAL_ZONES",
                f"{it} is not in a subnet of FIREWALL_OUTBOUND_SUBNETS, and so cannot be asked; "
                f"add {it} to that list",
            )


def _upstreams(given: Settings) -> tuple[Upstream, ...]:
    """Return who is asked where a tunnel has no resolver of its own."""
    if (plain := given.dns_upstream_plain_addresses) and not _has_address(given):
        return plain.value
    chosen = given.dns_upstream_resolvers
    found = chosen.value if chosen else names.known()[names.DEFAULT]
    kind = given.dns_upstream_resolver_type
    return tuple(map(_unencrypted, found)) if kind and kind.value == "plain" else found


def _unencrypted(upstream: Upstream) -> Upstream:
    port = PLAIN_PORT if upstream.port == names.TLS_PORT else upstream.port
    return replace(upstream, port=port, name="")


def _has_address(given: Settings) -> bool:
    """Return whether `DNS_ADDRESS` names a resolver other than the gateway's own."""
    named = given.dns_address
    chosen = named is not None and named.origin.kind is not Kind.DEFAULT
    return chosen and named is not None and not all(it.is_loopback for it in named.value)


def _settled(given: Settings, tunnel: SourcedTunnel, findings: Findings) -> SourcedTunnel:
    """Return `tunnel` with the resolvers that are asked unencrypted at port 53, or none."""
    plain, chosen = given.dns_upstream_plain_addresses, given.dns_upstream_resolvers
    if _has_address(given):
        for other in filter(None, (plain, chosen)):
            findings.warn(
                other.origin.where,
                "has no effect, because DNS_ADDRESS is asked; remove one",
            )
        return _without_loopback(tunnel, findings)
    if plain:
        if chosen:
            findings.warn(
                chosen.origin.where,
                "has no effect, because DNS_UPSTREAM_PLAIN_ADDRESSES are asked; remove one",
            )
        known_port = all(it.port == PLAIN_PORT for it in plain.value)
        asked = tuple(dict.fromkeys(it.address for it in plain.value)) if known_port else ()
        return replace(tunnel, dns=Sourced(asked, plain.origin))
    if chosen and tunnel.dns.value:
        findings.info(
            chosen.origin.where,
            f"is asked, and not {joined(tunnel.dns.value)} ({tunnel.dns.origin.text})",
        )
        return replace(tunnel, dns=Sourced((), chosen.origin))
    return _without_loopback(tunnel, findings)


def _without_loopback(tunnel: SourcedTunnel, findings: Findings) -> SourcedTunnel:
    """Return `tunnel` without resolvers on loopback, which mean the gateway's own."""
    kept = tuple(it for it in tunnel.dns.value if not it.is_loopback)
    if len(kept) < len(tunnel.dns.value):
        where = tunnel.dns.origin.where
        findings.info(
            where,
            "127.0.0.1 is the gateway's own resolver; if it is to be one that you run in this "
            "network, such as Pi-hole, write DNS_SERVER=off as well",
        )
    return replace(tunnel, dns=Sourced(kept, tunnel.dns.origin))


def _check_reach(
    upstreams: Sequence[Upstream], tunnel: SourcedTunnel, where: str, findings: Findings
) -> None:
    """Report that none of `upstreams` can be reached through `tunnel`."""
    reached = [
        it
        for it in upstreams
        if tunnel.tunnel.has_family(it.address.version)
        and any(it.address in network for network in tunnel.allowed_ips)
    ]
    if not reached:
        findings.warn(
            where,
            f"names do not resolve, because {joined(it.address for it in upstreams)} cannot be "
            "reached with the addresses and AllowedIPs of the tunnel; set DNS_ADDRESS to your "
            "provider's resolver",
        )


def _where(given: Settings) -> str:
    named = given.dns_upstream_plain_addresses or given.dns_upstream_resolvers
    return named.origin.where if named else "DNS_UPSTREAM_RESOLVERS"
