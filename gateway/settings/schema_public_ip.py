"""The variables of the look-up of the public address."""

from pathlib import PurePosixPath
from typing import Annotated

from gateway.model import Secret
from gateway.model.public_ip import FILE, AddressApi
from gateway.settings import fields, public_ip
from gateway.settings.schema_names import NameSettings
from gateway.settings.schema_tunnel import variable
from gateway.settings.sourced import Sourced, read_with


class PublicIpSettings(NameSettings):
    """The variables of the public address; `schema_proxies.ProxySettings` adds those of proxies."""

    publicip_enabled: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Public address",
        "`on`: after each connect a service on the internet is asked, through the tunnel, which "
        "address it sees. See [The public address](#the-public-address).",
        unset="`on` if `PUBLICIP_API` is set, else `off`",
    )
    publicip_api: Annotated[Sourced[tuple[AddressApi, ...]] | None, read_with(public_ip.apis)] = (
        variable(
            "Public address",
            "Which services are asked, comma-separated, each one only if those before it have not "
            "answered: `ipinfo`, `ifconfigco`, `ip2location`, `cloudflare`, or `echoip#` and the "
            "URL of an echoip server of your own.",
            unset="`ipinfo,ifconfigco,ip2location,cloudflare`",
            example="echoip#https://ip.example",
        )
    )
    publicip_api_token: Annotated[
        Sourced[tuple[Secret, ...]] | None, read_with(public_ip.tokens)
    ] = variable(
        "Public address",
        "Tokens of your accounts at these services, comma-separated, in the order of "
        "`PUBLICIP_API`. `ipinfo` and `ip2location` take one.",
        unset="none",
    )
    publicip_file: Annotated[Sourced[PurePosixPath] | None, read_with(fields.path)] = variable(
        "Public address",
        "The file in the container that the address is written to. It is empty without one.",
        older=("PUBLICIP_FILE", "IP_STATUS_FILE"),
        unset=f"`{FILE}`",
    )
