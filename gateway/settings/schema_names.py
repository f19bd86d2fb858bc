"""The variables of names: the gateway's own resolver, and the ones it asks."""

from pathlib import PurePosixPath
from typing import Annotated

from gateway.model import (
    Address,
)
from gateway.model.name_server import BlockList, LocalZone, Upstream
from gateway.settings import addresses, block_urls, fields, names
from gateway.settings.schema_tunnel import TunnelSettings, variable
from gateway.settings.sourced import Sourced, read_with


class NameSettings(TunnelSettings):
    """The variables of names; `schema.Settings` adds all others."""

    dns_server: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Names",
        "`on`: the gateway runs a resolver at 127.0.0.1 that workloads ask and that asks others "
        "through the tunnel. `off`: workloads ask `DNS_ADDRESS` themselves.",
        older=("DNS_SERVER", "DOT", "DNS_OVER_TLS"),
        unset="`on`",
    )
    dns_address: Annotated[Sourced[tuple[Address, ...]] | None, read_with(addresses.resolvers)] = (
        variable(
            "Names",
            "Resolvers, comma-separated, asked unencrypted through the tunnel, or in a subnet of "
            "`FIREWALL_OUTBOUND_SUBNETS`. `127.0.0.1` is the gateway's own resolver; with "
            "`DNS_SERVER=off` it is one that you run in this namespace.",
            older=("DNS_ADDRESS", "DNS_PLAINTEXT_ADDRESS"),
            unset="`DNS` of the wg-quick file or the provider's, else `DNS_UPSTREAM_RESOLVERS`",
            example="10.64.0.1",
        )
    )
    dns_upstream_plain_addresses: Annotated[
        Sourced[tuple[Upstream, ...]] | None, read_with(names.plain_upstreams)
    ] = variable(
        "Names",
        "The same as `DNS_ADDRESS`, with or without a port. It takes effect with `DNS_SERVER=on`.",
        unset="none",
        example="10.64.0.1:5353",
    )
    dns_upstream_resolvers: Annotated[
        Sourced[tuple[Upstream, ...]] | None, read_with(names.upstreams)
    ] = variable(
        "Names",
        "Resolvers that the gateway's own one asks where no other is named, comma-separated: a "
        "name of [the list](#resolvers), or `address@port#name` with the name in the certificate. "
        "If it is set, `DNS` of the wg-quick file and the provider's resolver are not used.",
        older=("DNS_UPSTREAM_RESOLVERS", "DOT_PROVIDERS"),
        unset="`cloudflare`",
        example="quad9,192.0.2.53@853#dns.example",
    )
    dns_upstream_resolver_type: Annotated[Sourced[str] | None, read_with(names.upstream_type)] = (
        variable(
            "Names",
            "How `DNS_UPSTREAM_RESOLVERS` are asked: `dot`, over TLS and only with the right "
            "certificate, or `plain`. `doh` is refused.",
            unset="`dot`",
        )
    )
    dns_caching: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Names",
        "`off`: the gateway's resolver passes each question on.",
        older=("DNS_CACHING", "DOT_CACHING"),
        unset="`on`",
    )
    dns_rebinding_protection_exempt_hostnames: Annotated[
        Sourced[tuple[str, ...]] | None, read_with(names.domains)
    ] = variable(
        "Names",
        "Domains, comma-separated, whose names may have private addresses. From the answers about "
        "all other names the gateway's resolver takes them out.",
        unset="none",
        example="plex.direct",
    )
    dns_local_zones: Annotated[
        Sourced[tuple[LocalZone, ...]] | None, read_with(names.local_zones)
    ] = variable(
        "Names",
        "Domains, comma-separated, each with the resolver that the gateway's own one asks for its "
        "names, and for no others. The resolver has to be in a subnet of "
        "`FIREWALL_OUTBOUND_SUBNETS`; workloads cannot ask it themselves. Names in these domains "
        "may have private addresses.",
        unset="none",
        example="home.lan=192.168.1.1",
    )
    dns_block_files: Annotated[
        Sourced[tuple[PurePosixPath, ...]] | None, read_with(names.block_files)
    ] = variable(
        "Names",
        "Files in the container, comma-separated, with names of which the gateway's resolver says "
        "that they do not exist: hosts files, RPZ zones, or a name on each line.",
        unset="none",
        example="/config/ads.hosts,/config/malicious.rpz",
    )
    dns_block_urls: Annotated[
        Sourced[tuple[BlockList, ...]] | None, read_with(block_urls.block_urls)
    ] = variable(
        "Names",
        "The same for lists that are fetched, through the tunnel only: URLs, comma-separated, that "
        "begin with `https://`. See [Resolvers](#resolvers).",
        unset="none",
        example="https://lists.example/hosts",
    )
    dns_update_period: Annotated[Sourced[int] | None, read_with(block_urls.period)] = variable(
        "Names",
        "How often the lists of `DNS_BLOCK_URLS` are fetched again; `off` or 0 for once.",
        older=("DNS_UPDATE_PERIOD", "DOT_UPDATE_PERIOD"),
        unset="`24h`",
    )
    dns_unblock_hostnames: Annotated[Sourced[tuple[str, ...]] | None, read_with(names.domains)] = (
        variable(
            "Names",
            "Domains, comma-separated, whose names are not blocked, whatever the lists say.",
            older=("DNS_UNBLOCK_HOSTNAMES", "UNBLOCK"),
            unset="none",
            example="example.org",
        )
    )
    dns_dnssec: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Names",
        "`on`: the gateway's resolver checks the signatures of answers (DNSSEC), and does not give "
        "those with a wrong one.",
        unset="`off`",
    )
    dns_hijack: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Names",
        "`on`: the gateway's resolver answers what workloads ask others at port 53, by UDP or TCP; "
        "see [Resolvers](#resolvers).",
        unset="`off`",
    )
