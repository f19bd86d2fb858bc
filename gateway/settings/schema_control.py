"""The variables of the control API."""

from pathlib import PurePosixPath
from typing import Annotated

from gateway.model import HostPort, Secret
from gateway.settings import addresses, control
from gateway.settings.schema_port_client import PortClientSettings
from gateway.settings.schema_tunnel import variable
from gateway.settings.sourced import Sourced, read_with


class ControlSettings(PortClientSettings):
    """The variables of the control API; `schema.Settings` adds all others."""

    http_control_server_address: Annotated[
        Sourced[HostPort] | None, read_with(addresses.listen_address)
    ] = variable(
        "Control API",
        "Where the [control API](control-api.md) listens, `address:port`; `:port` for every "
        "address. Reachable from outside only with its port in `FIREWALL_INPUT_PORTS`.",
        unset="the control API is off",
        example=":8000",
    )
    http_control_server_api_key: Annotated[Sourced[Secret] | None, read_with(control.key)] = (
        variable(
            "Control API",
            "A key for all routes of the control API, of 16 characters at least. Better as a "
            "secret file.",
            unset="none",
        )
    )
    http_control_server_auth_config_filepath: Annotated[
        Sourced[PurePosixPath] | None, read_with(control.path)
    ] = variable(
        "Control API",
        "A file in the container with roles, as gluetun has them: "
        "[Credentials](control-api.md#credentials).",
        unset="`/gluetun/auth/config.toml`, if it is there",
    )
    http_control_server_auth_default_role: Annotated[
        Sourced[Secret] | None, read_with(control.default_role)
    ] = variable(
        "Control API",
        "A role for all routes that no role of the file has, in JSON, as gluetun has it. Better "
        "as a secret file.",
        unset="none",
        example='{"auth":"basic","username":"me","password":"…"}',
    )
