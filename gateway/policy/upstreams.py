"""Which resolvers are asked: those of a tunnel, or others that the gateway's own one asks."""

from ipaddress import ip_address

from gateway.model import (
    Address,
    Candidate,
    Config,
)
from gateway.model.name_server import Upstream

OURS = ip_address("127.0.0.1")
"""Where the gateway's own resolver listens, in the namespace of the workloads."""
OURS_BY_IPV6 = ip_address("::1")
"""Where it listens as well if questions over IPv6 are redirected to it."""
REDIRECTED = 53853
"""The port at which it gets redirected questions. It is another one than 53, so that no program
which has taken that one gets them: its own questions to others would come back to it for ever."""


def upstreams_of(tunnel: Candidate, config: Config) -> tuple[Upstream, ...]:
    """Return who is asked while `tunnel` is up, in order: its own resolvers if it has any.

    Others are left out that it has no address to ask from.
    """
    server = config.name_server
    if tunnel.dns or server is None:
        return tuple(map(Upstream, tunnel.dns))
    return tuple(it for it in server.upstreams if tunnel.has_family(it.address.version))


def resolvers_for(tunnel: Candidate, config: Config) -> tuple[Address, ...]:
    """Return what the resolver file of the workloads names."""
    return tunnel.dns if config.name_server is None else (OURS,)


def described(upstreams: tuple[Upstream, ...]) -> str:
    """Return for people who is asked and how, such as "1.1.1.1 (cloudflare) over TLS"."""
    if not upstreams:
        return "no resolver"
    return ", ".join(dict.fromkeys(map(_described, upstreams)))


def _described(upstream: Upstream) -> str:
    default = 853 if upstream.name else 53
    host = f"[{upstream.address}]" if upstream.address.version == 6 else str(upstream.address)  # noqa: PLR2004
    where = str(upstream.address) if upstream.port == default else f"{host}:{upstream.port}"
    who = f"{where} ({upstream.provider})" if upstream.provider else where
    return f"{who} over TLS" if upstream.name else f"{who} unencrypted in the tunnel"
