"""Every variable of the gateway: its name, its meaning, and its parser.

docs/configuration.md is generated from this model. `values`, `addresses`, `servers` and `fields`
parse the fields one by one; `checks` compares them afterwards.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AliasChoices, AliasGenerator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.model import (
    Address,
    Backend,
    HealthProbe,
    HostPort,
    Implementation,
    Interface,
    Network,
    PortRange,
    Secret,
)
from gateway.settings import addresses, fields, values
from gateway.settings.addresses import allowed_ips, lan_subnets
from gateway.settings.servers import EndpointChoice, endpoint_choices
from gateway.settings.sourced import Sourced, read_with


def _variable(
    group: str, description: str, *, unset: str, example: str = "", older: tuple[str, ...] = ()
) -> Any:
    """Describe a variable. `older` is its name followed by its older names, if there are any."""
    return Field(
        default=None,
        validation_alias=AliasChoices(*older) if older else None,
        description=description,
        examples=[example] if example else None,
        json_schema_extra={"group": group, "unset": unset},
    )


class Settings(BaseSettings):
    """The variables, each with its origin, or None when it is not set.

    `sources` builds it and removes fields that are `Refused`. The second half of each type parses
    the text; the rest is documentation.
    """

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=str.upper),
        case_sensitive=True,
        enable_decoding=False,  # a list is not JSON here
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        arbitrary_types_allowed=True,
    )

    wireguard_private_key: Annotated[Sourced[Secret] | None, read_with(values.secret_key)] = (
        _variable(
            "Tunnel",
            "The gateway's private key, base64 of 32 bytes. Better as a secret file.",
            unset="required without a wg-quick file",
        )
    )
    wireguard_addresses: Annotated[
        Sourced[tuple[Interface, ...]] | None, read_with(addresses.interfaces)
    ] = _variable(
        "Tunnel",
        "The tunnel's addresses, comma-separated, of either family. One without a prefix length is "
        "a host address. Without an IPv6 address, IPv6 is refused altogether.",
        older=("WIREGUARD_ADDRESSES", "WIREGUARD_ADDRESS"),
        unset="required without a wg-quick file",
        example="10.64.222.21/32,fd7d::2/128",
    )
    wireguard_public_key: Annotated[Sourced[str] | None, read_with(values.used_key)] = _variable(
        "Tunnel",
        "The server's public key, base64 of 32 bytes.",
        unset="required without a wg-quick file",
    )
    wireguard_preshared_key: Annotated[Sourced[Secret] | None, read_with(values.preshared_key)] = (
        _variable(
            "Tunnel",
            "A preshared key, base64 of 32 bytes, where the provider gives one. All zeros mean "
            "none. Better as a secret file.",
            unset="none",
        )
    )
    wireguard_endpoint_ip: Annotated[
        Sourced[Address | str] | None, read_with(fields.endpoint_ip)
    ] = _variable(
        "Tunnel",
        "The server's address. A name works too: it is looked up outside the tunnel, with one "
        "question to one resolver, which learns the name.",
        older=("WIREGUARD_ENDPOINT_IP", "VPN_ENDPOINT_IP"),
        unset="required without a wg-quick file",
        example="203.0.113.7",
    )
    wireguard_endpoint_port: Annotated[Sourced[int] | None, read_with(values.port)] = _variable(
        "Tunnel",
        "The server's UDP port.",
        older=("WIREGUARD_ENDPOINT_PORT", "VPN_ENDPOINT_PORT"),
        unset="required without a wg-quick file",
        example="51820",
    )
    wireguard_endpoints: Annotated[
        Sourced[tuple[EndpointChoice, ...]] | None, read_with(endpoint_choices)
    ] = _variable(
        "Tunnel",
        "Several servers, comma-separated, in order of preference, instead of "
        "`WIREGUARD_ENDPOINT_IP` and `WIREGUARD_ENDPOINT_PORT`: each `address:port` or "
        "`name:port`, with "
        "`@publickey` if it differs from `WIREGUARD_PUBLIC_KEY`.",
        unset="none",
        example="203.0.113.7:51820,[2001:db8::7]:51820",
    )
    wireguard_endpoint_resolver: Annotated[
        Sourced[Address] | None, read_with(fields.endpoint_resolver)
    ] = _variable(
        "Tunnel",
        "The resolver that looks up the server's name, outside the tunnel. Only the gateway can "
        "ask it.",
        unset="the resolver that the container was given at its first start",
        example="192.168.1.1",
    )
    wireguard_allowed_ips: Annotated[
        Sourced[tuple[Network, ...]] | None, read_with(allowed_ips)
    ] = _variable(
        "Tunnel",
        "The destinations that go into the tunnel, comma-separated. With less than everything, the "
        "rest is refused; it never leaves outside the tunnel.",
        unset="`0.0.0.0/0,::/0`",
    )
    wireguard_mtu: Annotated[Sourced[int] | None, read_with(values.mtu)] = _variable(
        "Tunnel",
        "The largest packet in the tunnel in bytes, 576 to 65535; with an IPv6 address at "
        "least 1280. 0 is the same as not set.",
        unset="the uplink's less the overhead",
        example="1320",
    )
    wireguard_persistent_keepalive_interval: Annotated[
        Sourced[int] | None, read_with(values.keepalive)
    ] = _variable(
        "Tunnel",
        "How often an idle gateway sends a keepalive packet to the server; 0 or `off` for never. "
        "Health is slower to notice a dead server without it.",
        unset="`25s`",
        example="25s",
    )
    wireguard_implementation: Annotated[
        Sourced[Implementation] | None,
        read_with(fields.implementation),
    ] = _variable(
        "Tunnel",
        "Where WireGuard runs: `kernelspace`, `userspace` (wireguard-go, needs "
        "`/dev/net/tun`), or `auto`: the kernel where it can, else userspace.",
        unset="`auto`",
    )
    wireguard_conf_secretfile: Annotated[Sourced[PurePosixPath] | None, read_with(fields.path)] = (
        _variable(
            "Tunnel",
            "The path of a wg-quick file with all of the above.",
            unset="the paths listed below",
        )
    )
    vpn_service_provider: Annotated[Sourced[str] | None, read_with(fields.provider)] = _variable(
        "Tunnel",
        "Only `custom`: there are no built-in server lists.",
        older=("VPN_SERVICE_PROVIDER", "VPNSP"),
        unset="`custom`",
    )
    vpn_type: Annotated[Sourced[str] | None, read_with(fields.vpn_type)] = _variable(
        "Tunnel",
        "Only `wireguard`.",
        unset="`wireguard`",
    )
    vpn_up_command: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.command)] = (
        _variable(
            "Tunnel",
            "A program with its arguments that runs when the tunnel comes up. Without a shell; it "
            "has 30 seconds, and its failure is logged. `{{VPN_INTERFACE}}` in it becomes `wg0`.",
            unset="none",
            example="/config/up.sh --quiet",
        )
    )
    vpn_down_command: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.command)] = (
        _variable(
            "Tunnel",
            "The same for a tunnel that goes down.",
            unset="none",
        )
    )
    firewall_outbound_subnets: Annotated[
        Sourced[tuple[Network, ...]] | None, read_with(lan_subnets)
    ] = _variable(
        "Firewall",
        "Private subnets, comma-separated, that workloads may reach outside the tunnel, such as "
        "the home network, with TCP, UDP and ping. Never for DNS, unless `DNS_ADDRESS` names a "
        "resolver there.",
        older=("FIREWALL_OUTBOUND_SUBNETS", "EXTRA_SUBNETS"),
        unset="none",
        example="192.168.1.0/24,10.0.5.7",
    )
    firewall_input_ports: Annotated[
        Sourced[tuple[PortRange, ...]] | None, read_with(values.ports)
    ] = _variable(
        "Firewall",
        "Ports, comma-separated, that others may reach from outside the tunnel: every port that "
        "the gateway publishes. `/tcp` or `/udp` admits only that.",
        unset="none",
        example="8080/tcp,6881-6889",
    )
    firewall_vpn_input_ports: Annotated[
        Sourced[tuple[PortRange, ...]] | None, read_with(values.ports)
    ] = _variable(
        "Firewall",
        "Ports, comma-separated, that others may reach through the tunnel: those that the provider "
        "forwards.",
        unset="none",
        example="6881",
    )
    firewall_backend: Annotated[Sourced[Backend] | None, read_with(fields.backend)] = _variable(
        "Firewall",
        "Which kernel firewall carries the rules: `iptables`, `nftables`, or `auto`: the "
        "first that works for both families.",
        unset="`auto`",
    )
    dns_address: Annotated[Sourced[tuple[Address, ...]] | None, read_with(addresses.resolvers)] = (
        _variable(
            "Names",
            "Resolvers, comma-separated, written to `/etc/resolv.conf` and asked through the "
            "tunnel, or in a subnet of `FIREWALL_OUTBOUND_SUBNETS`. `127.0.0.1` is a resolver "
            "that you run in this namespace.",
            older=("DNS_ADDRESS", "DNS_PLAINTEXT_ADDRESS"),
            unset="`DNS` of the wg-quick file, else none: no name resolves",
            example="10.64.0.1",
        )
    )
    health_server_address: Annotated[
        Sourced[HostPort] | None, read_with(addresses.listen_address)
    ] = _variable(
        "Health",
        "Where the health server listens, `address:port`; `:port` for every address. "
        "Reachable from outside only with its port in `FIREWALL_INPUT_PORTS`.",
        unset="`127.0.0.1:9999`",
    )
    health_probe: Annotated[Sourced[HealthProbe] | None, read_with(fields.probe)] = _variable(
        "Health",
        "What is asked inside the tunnel when the evidence is in doubt: `dns` the tunnel's "
        "resolver, `icmp` an echo from it, `icmp:ADDRESS` an echo from another host, `off` "
        "nothing, `auto` the resolver if there is one, else an echo that ends at the server.",
        unset="`auto`",
        example="icmp:10.64.0.1",
    )
    log_level: Annotated[Sourced[str] | None, read_with(fields.log_level)] = _variable(
        "Log",
        "The lowest level that is logged: `debug`, `info`, `warning` or `error`."
        " `debug` shows all that is applied, as [commands](health.md#debugging).",
        unset="`info`",
    )
    log_format: Annotated[Sourced[str] | None, read_with(fields.log_format)] = _variable(
        "Log",
        "`json`, `console`, or `auto`: console on a terminal.",
        unset="`auto`",
    )
    tz: Annotated[Sourced[str] | None, read_with(str)] = _variable(
        "Log",
        "Accepted because compose files have it. The times in the log are UTC.",
        unset="no difference",
    )


SECRETS: Final = frozenset({"wireguard_private_key", "wireguard_preshared_key"})
"""Fields whose values must never be shown."""

COMMANDS: Final = frozenset({"vpn_up_command", "vpn_down_command"})
"""Fields whose text is split into words, as a shell does."""

FIELDS: Final = tuple(Settings.model_fields)
"""All fields in the order of the documentation; a variable is its field in capitals."""

PLAIN_ONLY: Final = frozenset(
    {"wireguard_conf_secretfile", "health_server_address", "log_level", "log_format", "tz"}
)
"""Fields that cannot come from a file: others read them too, or they are read before any file."""


def names_of(field: str) -> tuple[str, ...]:
    """Return the names of the variables that set a field: the current one, then older ones."""
    alias = Settings.model_fields[field].validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (str(alias),)


OLDER_NAMES: Final[Mapping[str, str]] = {
    older: names_of(field)[0] for field in FIELDS for older in names_of(field)[1:]
}
"""Older names of variables, with the current ones."""
