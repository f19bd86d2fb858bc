"""The variables of the tunnel, and how a variable is declared."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AliasChoices, AliasGenerator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.model import Address, Implementation, Interface, Network, Secret
from gateway.settings import addresses, fields, values
from gateway.settings.addresses import allowed_ips
from gateway.settings.servers import EndpointChoice, endpoint_choices
from gateway.settings.sourced import Sourced, read_with


def variable(
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


class TunnelSettings(BaseSettings):
    """The variables of the tunnel; `schema.Settings` adds all others."""

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=str.upper),
        case_sensitive=True,
        defer_build=True,  # seven classes are only there to be added to
        enable_decoding=False,  # a list is not JSON here
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        arbitrary_types_allowed=True,
    )

    wireguard_private_key: Annotated[Sourced[Secret] | None, read_with(values.secret_key)] = (
        variable(
            "Tunnel",
            "The gateway's private key, base64 of 32 bytes. Better as a secret file.",
            unset="required without a wg-quick file",
        )
    )
    wireguard_addresses: Annotated[
        Sourced[tuple[Interface, ...]] | None, read_with(addresses.interfaces)
    ] = variable(
        "Tunnel",
        "The tunnel's addresses, comma-separated, of either family. One without a prefix length is "
        "a host address. Without an IPv6 address, IPv6 is refused altogether.",
        older=("WIREGUARD_ADDRESSES", "WIREGUARD_ADDRESS"),
        unset="required without a wg-quick file",
        example="10.64.222.21/32,fd7d::2/128",
    )
    wireguard_public_key: Annotated[Sourced[str] | None, read_with(values.used_key)] = variable(
        "Tunnel",
        "The server's public key, base64 of 32 bytes.",
        unset="required without a wg-quick file",
    )
    wireguard_preshared_key: Annotated[Sourced[Secret] | None, read_with(values.preshared_key)] = (
        variable(
            "Tunnel",
            "A preshared key, base64 of 32 bytes, where the provider gives one. All zeros mean "
            "none. Better as a secret file.",
            unset="none",
        )
    )
    wireguard_endpoint_ip: Annotated[
        Sourced[Address | str] | None, read_with(fields.endpoint_ip)
    ] = variable(
        "Tunnel",
        "The server's address. A name works too: it is looked up outside the tunnel, with one "
        "question to one resolver, which learns the name.",
        older=("WIREGUARD_ENDPOINT_IP", "VPN_ENDPOINT_IP"),
        unset="required without a wg-quick file",
        example="203.0.113.7",
    )
    wireguard_endpoint_port: Annotated[Sourced[int] | None, read_with(values.port)] = variable(
        "Tunnel",
        "The server's UDP port.",
        older=("WIREGUARD_ENDPOINT_PORT", "VPN_ENDPOINT_PORT"),
        unset="required without a wg-quick file",
        example="51820",
    )
    wireguard_endpoints: Annotated[
        Sourced[tuple[EndpointChoice, ...]] | None, read_with(endpoint_choices)
    ] = variable(
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
    ] = variable(
        "Tunnel",
        "The resolver that looks up the server's name, outside the tunnel. Only the gateway can "
        "ask it.",
        unset="the resolver that the container was given at its first start",
        example="192.168.1.1",
    )
    wireguard_allowed_ips: Annotated[
        Sourced[tuple[Network, ...]] | None, read_with(allowed_ips)
    ] = variable(
        "Tunnel",
        "The destinations that go into the tunnel, comma-separated. With less than everything, the "
        "rest is refused; it never leaves outside the tunnel.",
        unset="`0.0.0.0/0,::/0`",
    )
    wireguard_mtu: Annotated[Sourced[int] | None, read_with(values.mtu)] = variable(
        "Tunnel",
        "The largest packet in the tunnel in bytes, 576 to 65535; with an IPv6 address at "
        "least 1280. 0 is the same as not set.",
        unset="the uplink's less the overhead, [lowered to what arrives]"
        "(health.md#the-largest-packet)",
        example="1320",
    )
    wireguard_persistent_keepalive_interval: Annotated[
        Sourced[int] | None, read_with(values.keepalive)
    ] = variable(
        "Tunnel",
        "How often an idle gateway sends a keepalive packet to the server; 0 or `off` for never. "
        "Health is slower to notice a dead server without it.",
        unset="`25s`",
        example="25s",
    )
    wireguard_implementation: Annotated[
        Sourced[Implementation] | None,
        read_with(fields.implementation),
    ] = variable(
        "Tunnel",
        "Where WireGuard runs: `kernelspace`, `userspace` (wireguard-go, needs "
        "`/dev/net/tun`), or `auto`: the kernel where it can, else userspace.",
        unset="`auto`",
    )
    wireguard_conf_secretfile: Annotated[Sourced[PurePosixPath] | None, read_with(fields.path)] = (
        variable(
            "Tunnel",
            "The path of a wg-quick file with all of the above.",
            unset="the paths listed below",
        )
    )
    vpn_service_provider: Annotated[Sourced[str] | None, read_with(fields.provider)] = variable(
        "Tunnel",
        "`custom`, or a provider whose list of servers the gateway fetches: `airvpn`, `ivpn`, "
        "`mullvad`, `nordvpn`, `private internet access` (or `pia`), `surfshark`, `windscribe`. "
        "With a WireGuard file, or an endpoint and its public key, it decides nothing.",
        older=("VPN_SERVICE_PROVIDER", "VPNSP"),
        unset="`custom`",
    )
    openvpn_user: Annotated[Sourced[Secret] | None, read_with(fields.login)] = variable(
        "Tunnel",
        "The user name of your account, for Private Internet Access alone: a key is registered "
        "with it. Better as a secret file. The name is that of other images.",
        unset="required by Private Internet Access",
    )
    openvpn_password: Annotated[Sourced[Secret] | None, read_with(fields.login)] = variable(
        "Tunnel",
        "The password of that account. Better as a secret file.",
        unset="required by Private Internet Access",
    )
    vpn_type: Annotated[Sourced[str] | None, read_with(fields.vpn_type)] = variable(
        "Tunnel",
        "Only `wireguard`.",
        unset="`wireguard`",
    )
    vpn_up_command: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.command)] = (
        variable(
            "Tunnel",
            "A program with its arguments that runs when the tunnel comes up. Without a shell; it "
            "has 30 seconds, and its failure is logged. `{{VPN_INTERFACE}}` in it becomes `wg0`.",
            unset="none",
            example="/config/up.sh --quiet",
        )
    )
    vpn_down_command: Annotated[Sourced[tuple[str, ...]] | None, read_with(fields.command)] = (
        variable(
            "Tunnel",
            "The same for a tunnel that goes down.",
            unset="none",
        )
    )
