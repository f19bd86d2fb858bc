"""Every variable of the gateway: its name, its meaning, and its parser.

docs/configuration.md is generated from this model. `values`, `addresses`, `servers` and `fields`
parse the fields one by one; `checks` compares them afterwards. `schema_tunnel` has those of the
tunnel, `schema_names` those of names, `schema_public_ip` those of the public address,
`schema_proxies` those of proxies, `schema_control` those of the control API,
`schema_forwarding` those of forwarded ports.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AliasChoices

from gateway.model import Backend, HealthProbe, HostPort, Network, PortRange
from gateway.settings import addresses, fields, values
from gateway.settings.addresses import lan_subnets
from gateway.settings.schema_forwarding import ForwardingSettings
from gateway.settings.schema_tunnel import variable
from gateway.settings.sourced import Sourced, read_with

_ANY: Final = "all"


class Settings(ForwardingSettings):
    """The variables, each with its origin, or None when it is not set.

    `sources` builds it and removes fields that are `Refused`. The second half of each type parses
    the text; the rest is documentation.
    """

    server_countries: Annotated[
        Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)
    ] = variable(
        "Choice of a server",
        "Countries, comma-separated, by name or code of two letters.",
        older=("SERVER_COUNTRIES", "COUNTRY"),
        unset=_ANY,
        example="Netherlands,se",
    )
    server_regions: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)] = (
        variable(
            "Choice of a server",
            "Regions, comma-separated.",
            older=("SERVER_REGIONS", "REGION"),
            unset=_ANY,
        )
    )
    server_cities: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)] = (
        variable(
            "Choice of a server",
            "Cities, comma-separated, as the provider's files write them.",
            older=("SERVER_CITIES", "CITY"),
            unset=_ANY,
            example="ams,sto",
        )
    )
    server_names: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)] = (
        variable(
            "Choice of a server",
            "Names of servers, comma-separated.",
            older=("SERVER_NAMES", "SERVER_NAME"),
            unset=_ANY,
            example="Alphard,Betelgeuse",
        )
    )
    server_hostnames: Annotated[
        Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)
    ] = variable(
        "Choice of a server",
        "Host names of servers, comma-separated, with or without their domain.",
        older=("SERVER_HOSTNAMES", "SERVER_HOSTNAME"),
        unset=_ANY,
        example="nl-ams-wg-101",
    )
    server_categories: Annotated[
        Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)
    ] = variable(
        "Choice of a server",
        "Categories of servers, comma-separated, as NordVPN names them.",
        unset=_ANY,
        example="P2P",
    )
    isp: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.server_filter)] = variable(
        "Choice of a server",
        "Companies that host the servers, comma-separated.",
        unset=_ANY,
        example="M247",
    )
    owned_only: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Choice of a server",
        "`on`: only servers that the provider owns.",
        older=("OWNED_ONLY", "OWNED"),
        unset="`off`",
    )
    port_forward_only: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Choice of a server",
        "`on`: only servers that can forward a port to you, of Private Internet Access.",
        unset="`off`",
    )
    server_order: Annotated[Sourced[fields.Order] | None, read_with(fields.server_order)] = (
        variable(
            "Choice of a server",
            "The order in which servers of a provider's list are tried: `random`, which is another "
            "one for each private key and stays the same, `listed`, or `latency`: the fastest "
            "first, which also applies to several WireGuard files and to `WIREGUARD_ENDPOINTS`: "
            "[the fastest server](#the-fastest-server).",
            unset="`random`",
        )
    )
    updater_period: Annotated[Sourced[int] | None, read_with(fields.period)] = variable(
        "Choice of a server",
        "How often the provider's list is fetched again, through the tunnel.",
        unset="`off`: once",
        example="24h",
    )
    firewall_outbound_subnets: Annotated[
        Sourced[tuple[Network, ...]] | None, read_with(lan_subnets)
    ] = variable(
        "Firewall",
        "Private subnets, comma-separated, that workloads may reach outside the tunnel, such as "
        "the home network, with TCP, UDP and ping. Never for DNS, unless `DNS_ADDRESS` names a "
        "resolver there. A network of the container's own may also have a public IPv4 range.",
        older=("FIREWALL_OUTBOUND_SUBNETS", "EXTRA_SUBNETS"),
        unset="none",
        example="192.168.1.0/24,10.0.5.7",
    )
    firewall_input_ports: Annotated[
        Sourced[tuple[PortRange, ...]] | None, read_with(values.ports)
    ] = variable(
        "Firewall",
        "Ports, comma-separated, that others may reach from outside the tunnel: every port that "
        "the gateway publishes. `/tcp` or `/udp` admits only that.",
        unset="none",
        example="8080/tcp,6881-6889",
    )
    firewall_input_ports_while_down: Annotated[Sourced[bool] | None, read_with(fields.switch)] = (
        variable(
            "Firewall",
            "`off`: the ports of `FIREWALL_INPUT_PORTS` are closed without a tunnel. Otherwise "
            "they stay open, so a web interface or a health server on the home network answers.",
            unset="`on`",
        )
    )
    firewall_vpn_input_ports: Annotated[
        Sourced[tuple[PortRange, ...]] | None, read_with(values.ports)
    ] = variable(
        "Firewall",
        "Ports, comma-separated, that others may reach through the tunnel: those that the provider "
        "forwards.",
        unset="none",
        example="6881",
    )
    firewall_backend: Annotated[Sourced[Backend] | None, read_with(fields.backend)] = variable(
        "Firewall",
        "Which kernel firewall carries the rules: `iptables`, `nftables`, or `auto`: the "
        "first that works for both families.",
        unset="`auto`",
    )
    portcullis_host: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Firewall",
        "`on`: lock the network namespace of the host itself, with `network_mode: host` or without "
        "a container. Otherwise the gateway refuses to start there: it would cut the machine off.",
        unset="`off`",
    )
    health_server_address: Annotated[
        Sourced[HostPort] | None, read_with(addresses.listen_address)
    ] = variable(
        "Health",
        "Where the health server listens, `address:port`; `:port` for every address. "
        "Reachable from outside only with its port in `FIREWALL_INPUT_PORTS`.",
        unset="`127.0.0.1:9999`",
    )
    health_probe: Annotated[Sourced[HealthProbe] | None, read_with(fields.probe)] = variable(
        "Health",
        "What is asked inside the tunnel when the evidence is in doubt: `dns` the tunnel's "
        "resolver, `icmp` an echo from it, `icmp:ADDRESS` an echo from another host, `off` "
        "nothing, `auto` the resolver if there is one, else an echo that ends at the server. With "
        "`off` the largest packet is not searched for either.",
        unset="`auto`",
        example="icmp:10.64.0.1",
    )
    log_level: Annotated[Sourced[str] | None, read_with(fields.log_level)] = variable(
        "Log",
        "The lowest level that is logged: `debug`, `info`, `warning` or `error`."
        " `debug` shows all that is applied, as [commands](health.md#debugging).",
        unset="`info`",
    )
    log_format: Annotated[Sourced[str] | None, read_with(fields.log_format)] = variable(
        "Log",
        "`text` for people, or `json`: one object in a line. `auto` and `console` are older words "
        "for `text`.",
        unset="`text`",
    )
    tz: Annotated[Sourced[str] | None, read_with(str)] = variable(
        "Log",
        "Accepted because compose files have it. The times in the log are UTC.",
        unset="no difference",
    )


SECRETS: Final = frozenset(
    {"wireguard_private_key", "wireguard_preshared_key", "openvpn_user", "openvpn_password"}
    | {"publicip_api_token", "httpproxy_password", "socks5_password"}
    | {"forwarded_port_client_user", "forwarded_port_client_password"}
    | {"http_control_server_api_key", "http_control_server_auth_default_role"}
)
"""Fields whose values must never be shown."""

SERVER_FILTERS: Final = (
    *("server_countries", "server_regions", "server_cities", "server_names", "server_hostnames"),
)
"""Fields that choose a server."""

COMMANDS: Final = frozenset(
    {
        *("vpn_up_command", "vpn_down_command"),
        *("vpn_port_forwarding_up_command", "vpn_port_forwarding_down_command"),
    }
)
"""Fields whose text is split into words, as a shell does."""

WHOLE: Final = COMMANDS | {"http_control_server_auth_default_role"}
"""Fields with one text: in a file, its lines and the quotes around it stay as they are."""

FIELDS: Final = tuple(Settings.model_fields)
"""All fields in the order of the documentation; a variable is its field in capitals."""

PLAIN_ONLY: Final = frozenset(
    {
        "wireguard_conf_secretfile",
        "forwarded_port_client",
        "health_server_address",
        "log_level",
        "log_format",
        "tz",
    }
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
