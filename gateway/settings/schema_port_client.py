"""The variables of the torrent client that gets the forwarded port."""

from typing import Annotated

from gateway.model import Secret
from gateway.model.port_client import ClientKind, ClientUrl
from gateway.settings import fields, port_client
from gateway.settings.schema_proxies import ProxySettings
from gateway.settings.schema_tunnel import variable
from gateway.settings.sourced import Sourced, read_with


class PortClientSettings(ProxySettings):
    """These variables; `schema.Settings` adds all others."""

    forwarded_port_client: Annotated[Sourced[ClientKind] | None, read_with(port_client.kind)] = (
        variable(
            "Port forwarding",
            "The torrent client that gets the forwarded port: `qbittorrent`, `transmission` or "
            "`deluge`. It has to be in the gateway's network. See "
            "[the torrent client](port-client.md).",
            unset="none",
            example="qbittorrent",
        )
    )
    forwarded_port_client_url: Annotated[Sourced[ClientUrl] | None, read_with(port_client.url)] = (
        variable(
            "Port forwarding",
            "Where the web interface of that client is: an address on loopback, or one in a subnet "
            "of `FIREWALL_OUTBOUND_SUBNETS`.",
            unset="`http://127.0.0.1:8080` for qBittorrent, port 9091 for Transmission, 8112 for "
            "Deluge",
            example="http://127.0.0.1:8090",
        )
    )
    forwarded_port_client_user: Annotated[Sourced[Secret] | None, read_with(fields.login)] = (
        variable(
            "Port forwarding",
            "The user of that web interface. Deluge has none.",
            unset="`admin` for qBittorrent, else none",
        )
    )
    forwarded_port_client_password: Annotated[Sourced[Secret] | None, read_with(fields.login)] = (
        variable(
            "Port forwarding",
            "The password of that user. Better as a secret file.",
            unset="`deluge` for Deluge, else no login",
        )
    )
