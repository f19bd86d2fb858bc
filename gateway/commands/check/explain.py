"""What `gateway check` shows of a configuration: every value in force, and where it came from."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from gateway.model import HealthProbe, HostPort, Peer, Tunnel
from gateway.settings import Loaded
from gateway.settings.servers import host_of

_NAME_WIDTH: Final = 40
_VALUE_WIDTH: Final = 44

Line = tuple[str, str, str]
"""Variable, value, origin."""


def explain(loaded: Loaded) -> str:
    """Return the effective configuration as text for a person; secrets appear as `set`."""
    tunnels = loaded.config.tunnels
    text: list[str] = []
    for number, (tunnel, origins) in enumerate(zip(tunnels, loaded.tunnel_origins, strict=True), 1):
        head = "Tunnel" if len(tunnels) == 1 else f"Tunnel {number} of {len(tunnels)}"
        text += [head, *map(_row, _tunnel(tunnel, origins)), ""]
    text += ["Everything else", *map(_row, _common(loaded)), ""]
    if loaded.notices:
        text += ["To know", *(f"  {notice.weight}: {notice}" for notice in loaded.notices), ""]
    return "\n".join(text)


def _row(line: Line) -> str:
    name, value, origin = line
    return f"  {name:<{_NAME_WIDTH}} {value:<{_VALUE_WIDTH}} {origin}".rstrip()


def _tunnel(tunnel: Tunnel, origins: Mapping[str, str]) -> Iterator[Line]:
    def line(name: str, value: str) -> Line:
        return name, value, origins[name]

    yield line("WIREGUARD_PRIVATE_KEY", "set")
    yield line("WIREGUARD_ADDRESSES", _list(tunnel.addresses))
    yield line("WIREGUARD_MTU", "by the uplink" if tunnel.mtu is None else str(tunnel.mtu))
    yield "(ListenPort)", str(tunnel.listen_port), origins["LISTEN_PORT"]
    mark = "drawn at each start" if tunnel.fwmark is None else hex(tunnel.fwmark)
    yield "(FwMark)", mark, origins["FWMARK"]
    if tunnel.dns:
        yield line("DNS_ADDRESS", _list(tunnel.dns))
    for number, peer in enumerate(tunnel.peers, 1):
        if len(tunnel.peers) > 1:
            yield f"peer {number} of {len(tunnel.peers)}", "", ""
        for name, value in _peer(peer):
            yield name, value, origins.get(f"{name} {number}", origins[name])


def _peer(peer: Peer) -> Iterator[tuple[str, str]]:
    yield "WIREGUARD_PUBLIC_KEY", peer.public_key
    yield "WIREGUARD_PRESHARED_KEY", "set" if peer.preshared_key else "none"
    yield "WIREGUARD_ENDPOINT_IP", str(host_of(peer.endpoint))
    yield "WIREGUARD_ENDPOINT_PORT", str(peer.endpoint.port)
    yield "WIREGUARD_ALLOWED_IPS", _list(peer.allowed_ips)
    keepalive = f"{peer.persistent_keepalive}s" if peer.persistent_keepalive else "off"
    yield "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", keepalive


def _common(loaded: Loaded) -> Iterator[Line]:
    config = loaded.config
    for name, value in (
        ("WIREGUARD_IMPLEMENTATION", config.implementation.value),
        ("FIREWALL_BACKEND", config.firewall.value),
        ("FIREWALL_OUTBOUND_SUBNETS", _list(config.outbound_subnets)),
        ("FIREWALL_INPUT_PORTS", _list(config.input_ports)),
        ("FIREWALL_VPN_INPUT_PORTS", _list(config.vpn_input_ports)),
        ("DNS_ADDRESS", _list(config.dns)),
        ("WIREGUARD_ENDPOINT_RESOLVER", str(config.endpoint_resolver or "the container's")),
        ("VPN_UP_COMMAND", "set" if config.up_command else "none"),
        ("VPN_DOWN_COMMAND", "set" if config.down_command else "none"),
        ("HEALTH_SERVER_ADDRESS", _listens(config.health_server)),
        ("HEALTH_PROBE", _probe(config.health_probe)),
        ("LOG_LEVEL", loaded.log.level),
        ("LOG_FORMAT", loaded.log.format),
    ):
        yield name, value, loaded.origins[name]


def _listens(server: HostPort) -> str:
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{host}:{server.port}"


def _probe(probe: HealthProbe) -> str:
    return f"{probe.kind}:{probe.address}" if probe.address else probe.kind.value


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"
