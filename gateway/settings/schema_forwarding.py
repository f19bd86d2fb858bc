"""The variables of forwarded ports."""

from ipaddress import IPv4Address
from typing import Annotated

from gateway.settings import fields, port_fields
from gateway.settings.schema_control import ControlSettings
from gateway.settings.schema_tunnel import variable
from gateway.settings.sourced import Sourced, read_with

GROUP = "Port forwarding"
_PIA = "PRIVATE_INTERNET_ACCESS_VPN_"


class ForwardingSettings(ControlSettings):
    """The variables of forwarded ports; `schema.Settings` adds all others."""

    vpn_port_forwarding: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        GROUP,
        "`on`: the gateway asks the server for a port, opens exactly that one in the tunnel, and "
        "keeps it: [Port forwarding](port-forwarding.md).",
        older=("VPN_PORT_FORWARDING", "PORT_FORWARDING", f"{_PIA}PORT_FORWARDING"),
        unset="`off`",
    )
    vpn_port_forwarding_provider: Annotated[
        Sourced[str] | None, read_with(port_fields.provider)
    ] = variable(
        GROUP,
        "How the server is asked: `protonvpn`, `private internet access`, or for any other server "
        "`natpmp` or `pcp`; each of these two is tried where the server does not have the other. "
        "`custom` is `natpmp`.",
        unset="that of `VPN_SERVICE_PROVIDER`",
    )
    vpn_port_forwarding_gateway: Annotated[
        Sourced[IPv4Address] | None, read_with(port_fields.gateway)
    ] = variable(
        GROUP,
        "The IPv4 address in the tunnel of the host that is asked.",
        unset="`10.2.0.1` for `protonvpn`, else the tunnel's resolver if it has a private address, "
        "else the first address of the tunnel's subnet",
        example="10.64.0.1",
    )
    vpn_port_forwarding_listening_ports: Annotated[
        Sourced[tuple[int, ...]] | None, read_with(port_fields.listening_ports)
    ] = variable(
        GROUP,
        "Ports, comma-separated, at which workloads listen: what arrives at the first forwarded "
        "port goes to the first of them, and so on. 0 is none.",
        older=("VPN_PORT_FORWARDING_LISTENING_PORTS", "VPN_PORT_FORWARDING_LISTENING_PORT"),
        unset="the forwarded ports themselves",
        example="6881",
    )
    vpn_port_forwarding_ports_count: Annotated[
        Sourced[int] | None, read_with(port_fields.count)
    ] = variable(
        GROUP,
        "How many ports are asked for, at most 5. Many servers give one.",
        unset="`1`",
    )
    vpn_port_forwarding_status_file: Annotated[
        Sourced[str] | None, read_with(port_fields.status_file)
    ] = variable(
        GROUP,
        "The file with the forwarded ports, one in a line; it is empty while there is none. `off` "
        "for no file.",
        older=(
            "VPN_PORT_FORWARDING_STATUS_FILE",
            "PORT_FORWARDING_STATUS_FILE",
            f"{_PIA}PORT_FORWARDING_STATUS_FILE",
        ),
        unset="`/tmp/gluetun/forwarded_port`",
    )
    vpn_port_forwarding_up_command: Annotated[
        Sourced[tuple[str, ...]] | None, read_with(fields.command)
    ] = variable(
        GROUP,
        "A command that runs when ports are forwarded, without a shell. `{{PORTS}}` in it becomes "
        "the ports with commas, `{{PORT}}` the first one, `{{VPN_INTERFACE}}` the interface.",
        unset="none",
        example='/bin/sh -c "echo {{PORTS}} > /shared/ports"',
    )
    vpn_port_forwarding_down_command: Annotated[
        Sourced[tuple[str, ...]] | None, read_with(fields.command)
    ] = variable(
        GROUP,
        "A command that runs when they no longer are; `{{PORTS}}` are those that were.",
        unset="none",
    )
