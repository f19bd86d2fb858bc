"""The variables of the gateway's own proxies."""

from typing import Annotated

from gateway.model import HostPort, Network, Secret
from gateway.settings import fields, proxies
from gateway.settings.schema_public_ip import PublicIpSettings
from gateway.settings.schema_tunnel import variable
from gateway.settings.sourced import Sourced, read_with

_NAMED_AS = "The name that clients of the {} give, together with a password."
_LISTENS = (
    "Where the {} listens, `address:port`; `:port` for every address. Reachable from outside only "
    "with its port in `FIREWALL_INPUT_PORTS`."
)
_SUBNETS = (
    "Subnets, comma-separated, whose hosts may use the {}. Workloads of this namespace are in "
    "`127.0.0.0/8`."
)
_UNSET_SUBNETS = "workloads of this namespace; with a password, everywhere"


class ProxySettings(PublicIpSettings):
    """The variables of proxies; `schema.Settings` adds all others."""

    httpproxy: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Proxies",
        "`on`: an HTTP proxy whose connections go into the tunnel, and nowhere else: "
        "[proxies](proxies.md).",
        older=("HTTPPROXY", "PROXY", "TINYPROXY"),
        unset="`off`",
    )
    httpproxy_listening_address: Annotated[
        Sourced[HostPort] | None, read_with(proxies.listening)
    ] = variable(
        "Proxies",
        _LISTENS.format("HTTP proxy"),
        older=(
            "HTTPPROXY_LISTENING_ADDRESS",
            "HTTPPROXY_PORT",
            "TINYPROXY_PORT",
            "PROXY_PORT",
        ),
        unset="`:8888`",
    )
    httpproxy_user: Annotated[Sourced[str] | None, read_with(proxies.http_user)] = variable(
        "Proxies",
        _NAMED_AS.format("HTTP proxy"),
        older=("HTTPPROXY_USER", "TINYPROXY_USER", "PROXY_USER"),
        unset="no password is asked for",
    )
    httpproxy_password: Annotated[Sourced[Secret] | None, read_with(proxies.http_password)] = (
        variable(
            "Proxies",
            "That password: letters, digits, `.`, `_` and `-`. Better as a secret file.",
            older=("HTTPPROXY_PASSWORD", "TINYPROXY_PASSWORD", "PROXY_PASSWORD"),
            unset="no password is asked for",
        )
    )
    httpproxy_allowed_subnets: Annotated[
        Sourced[tuple[Network, ...]] | None, read_with(proxies.subnets)
    ] = variable(
        "Proxies",
        _SUBNETS.format("HTTP proxy"),
        unset=_UNSET_SUBNETS,
        example="127.0.0.0/8,192.168.1.0/24",
    )
    httpproxy_log: Annotated[Sourced[bool] | None, read_with(proxies.log)] = variable(
        "Proxies",
        "`on`: the log has each request to the HTTP proxy, without what follows `?` in an address.",
        older=("HTTPPROXY_LOG", "TINYPROXY_LOG", "PROXY_LOG", "PROXY_LOG_LEVEL"),
        unset="`off`",
    )
    httpproxy_stealth: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Proxies",
        "`on`: requests of the HTTP proxy have no header `Via`, which says that there is a proxy. "
        "The client's address is never in a header.",
        unset="`off`",
    )
    socks5_enabled: Annotated[Sourced[bool] | None, read_with(fields.switch)] = variable(
        "Proxies",
        "`on`: a SOCKS5 proxy whose connections go into the tunnel, and nowhere else: "
        "[proxies](proxies.md).",
        unset="`off`",
    )
    socks5_listening_address: Annotated[Sourced[HostPort] | None, read_with(proxies.listening)] = (
        variable("Proxies", _LISTENS.format("SOCKS5 proxy"), unset="`:1080`")
    )
    socks5_user: Annotated[Sourced[str] | None, read_with(proxies.socks_user)] = variable(
        "Proxies", _NAMED_AS.format("SOCKS5 proxy"), unset="no password is asked for"
    )
    socks5_password: Annotated[Sourced[Secret] | None, read_with(proxies.socks_password)] = (
        variable(
            "Proxies",
            "That password. Better as a secret file.",
            unset="no password is asked for",
        )
    )
    socks5_allowed_subnets: Annotated[
        Sourced[tuple[Network, ...]] | None, read_with(proxies.subnets)
    ] = variable(
        "Proxies",
        _SUBNETS.format("SOCKS5 proxy"),
        unset=_UNSET_SUBNETS,
        example="127.0.0.0/8,192.168.1.0/24",
    )
