"""The text of `gateway check`: every effective value and its origin."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from gateway.model import Config, HealthProbe, HostPort, Secret
from gateway.model.name_server import BlockList
from gateway.model.port_client import ClientKind, ClientUrl
from gateway.providers.asked import gateway_for
from gateway.settings.assemble import Loaded
from gateway.settings.schema import SERVER_FILTERS, Settings
from gateway.settings.sourced import Sourced, origin_text
from gateway.settings.tunnels import SourcedTunnel
from gateway.settings.values import safe_text

T = TypeVar("T")

_NAME_WIDTH: Final = 40
_VALUE_WIDTH: Final = 44

Line = tuple[str, str, str]
"""Variable, value, origin."""


def explain(loaded: Loaded) -> str:
    """Return the effective configuration as text for a person; secrets appear as `set`."""
    text: list[str] = []
    several = len(loaded.tunnels) > 1
    differ = len({tunnel.dns for tunnel in loaded.config.tunnels}) > 1
    for number, tunnel in enumerate(loaded.tunnels, 1):
        head = f"Tunnel {number} of {len(loaded.tunnels)}" if several else "Tunnel"
        rows = [*_tunnel(tunnel), *([_dns(tunnel)] if differ else []), *_peers(tunnel)]
        text += [head, *map(_row, rows), ""]
    text += ["Everything else", *map(_row, _common(loaded)), ""]
    if loaded.notices:
        text += ["Notices", *(f"  {notice.weight}: {notice}" for notice in loaded.notices), ""]
    return "\n".join(text)


def explained(loaded: Loaded) -> dict[str, list[object]]:
    """Return the effective configuration for programs, in the words of `explain`."""
    return {
        "tunnels": [
            [*map(_entry, (*_tunnel(tunnel), _dns(tunnel), *_peers(tunnel)))]
            for tunnel in loaded.tunnels
        ],
        "values": [_entry(line) for line in _common(loaded)],
    }


def _entry(line: Line) -> dict[str, str]:
    return dict(zip(("name", "value", "origin"), line, strict=True))


def _row(line: Line) -> str:
    name, value, origin = line
    return f"  {name:<{_NAME_WIDTH}} {value:<{_VALUE_WIDTH}} {origin}".rstrip()


def _line(name: str, sourced: Sourced[T], show: Callable[[T], str] = str) -> Line:
    return name, show(sourced.value), origin_text(sourced)


def _tunnel(tunnel: SourcedTunnel) -> Iterator[Line]:
    yield _line("WIREGUARD_PRIVATE_KEY", tunnel.private_key, _set)
    yield _line("WIREGUARD_ADDRESSES", tunnel.addresses, _list)
    yield _line("WIREGUARD_MTU", tunnel.mtu, lambda mtu: str(mtu) if mtu else "from the uplink")
    yield _line("(ListenPort)", tunnel.listen_port)
    yield _line(
        "(FwMark)", tunnel.fwmark, lambda mark: hex(mark) if mark else "random at each start"
    )


def _dns(tunnel: SourcedTunnel) -> Line:
    return _line("DNS_ADDRESS", tunnel.dns, _list)


def _peers(tunnel: SourcedTunnel) -> Iterator[Line]:
    for number, peer in enumerate(tunnel.peers, 1):
        if len(tunnel.peers) > 1:
            yield f"peer {number} of {len(tunnel.peers)}", "", ""
        yield _line("WIREGUARD_PUBLIC_KEY", peer.public_key)
        yield _line("WIREGUARD_PRESHARED_KEY", peer.preshared_key, _set)
        yield _line("WIREGUARD_ENDPOINT_IP", peer.server.host)
        yield _line("WIREGUARD_ENDPOINT_PORT", peer.server.port)
        yield _line("WIREGUARD_ALLOWED_IPS", peer.allowed_ips, _list)
        yield _line(
            "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL",
            peer.keepalive,
            lambda seconds: f"{seconds}s" if seconds else "off",
        )


def _while_down(loaded: Loaded) -> Iterator[tuple[str, str, Sourced[bool] | None]]:
    """Yield whether input ports are open without a tunnel, if any is listed."""
    if loaded.config.input_ports:
        value = "on" if loaded.config.input_ports_while_down else "off"
        given = loaded.values.firewall_input_ports_while_down
        yield "FIREWALL_INPUT_PORTS_WHILE_DOWN", value, given


def _common(loaded: Loaded) -> Iterator[Line]:
    config, given = loaded.config, loaded.values
    for name, value, sourced in (
        ("WIREGUARD_IMPLEMENTATION", config.implementation, given.wireguard_implementation),
        ("FIREWALL_BACKEND", config.firewall, given.firewall_backend),
        (
            "FIREWALL_OUTBOUND_SUBNETS",
            _list((*config.outbound_subnets, *config.public_subnets)),
            given.firewall_outbound_subnets,
        ),
        ("FIREWALL_INPUT_PORTS", _list(config.input_ports), given.firewall_input_ports),
        *_while_down(loaded),
        ("FIREWALL_VPN_INPUT_PORTS", _list(config.vpn_input_ports), given.firewall_vpn_input_ports),
        ("DNS_ADDRESS", _list(config.tunnels[0].dns), loaded.tunnels[0].dns),
        (
            "WIREGUARD_ENDPOINT_RESOLVER",
            str(config.endpoint_resolver or "the container's"),
            given.wireguard_endpoint_resolver,
        ),
        *_port_client(config, given),
        *_forwarding(loaded),
        *_block_lists(given),
        *_choice(given),
        *_public_ip(loaded),
        ("VPN_UP_COMMAND", _set(config.up_command), given.vpn_up_command),
        ("VPN_DOWN_COMMAND", _set(config.down_command), given.vpn_down_command),
        *_proxies(loaded),
        ("HEALTH_SERVER_ADDRESS", _listens(config.health_server), given.health_server_address),
        ("HEALTH_PROBE", _probe(config.health_probe), given.health_probe),
        *_control(loaded),
        ("LOG_LEVEL", loaded.log.level, given.log_level),
        ("LOG_FORMAT", loaded.log.format, given.log_format),
    ):
        yield name, value, origin_text(sourced)


def _proxies(loaded: Loaded) -> Iterator[tuple[str, str, Sourced[object] | None]]:
    """Yield where each proxy that is on listens, and who may use it."""
    given = loaded.values
    for prefix, proxy in (
        ("HTTPPROXY", loaded.config.http_proxy),
        ("SOCKS5", loaded.config.socks_proxy),
    ):
        if proxy is None:
            continue
        users = "everyone" if proxy.subnets is None else _list(proxy.subnets)
        for name, value in (
            ("LISTENING_ADDRESS", _listens(proxy.listening)),
            ("PASSWORD", _set(proxy.account)),
            ("ALLOWED_SUBNETS", users),
        ):
            variable = f"{prefix}_{name}"
            yield variable, value, getattr(given, variable.lower())


def _control(loaded: Loaded) -> Iterator[tuple[str, str, Sourced[Any] | None]]:
    """Yield where the control API listens, and who may use it, if it is on."""
    server, control, given = loaded.config.control_server, loaded.config.control, loaded.values
    if server and control:
        roles = _list(safe_text(it.name) for it in control.roles)
        yield "HTTP_CONTROL_SERVER_ADDRESS", _listens(server), given.http_control_server_address
        yield "(roles of the control API)", roles, given.http_control_server_auth_config_filepath


def _forwarding(loaded: Loaded) -> Iterator[tuple[str, str, Sourced[Any] | None]]:
    """Yield how a server is asked for ports, if one is."""
    wanted, given = loaded.config.forwarding, loaded.values
    if wanted is None:
        return
    asked = {str(gateway_for(wanted, it.tunnel) or "not known yet") for it in loaded.tunnels}
    for field, value in (
        ("vpn_port_forwarding_provider", wanted.kind.value),
        ("vpn_port_forwarding_gateway", ", ".join(sorted(asked))),
        ("vpn_port_forwarding_listening_ports", _list(wanted.listening)),
        ("vpn_port_forwarding_ports_count", str(wanted.count)),
        ("vpn_port_forwarding_status_file", wanted.status_file or "none"),
        ("vpn_port_forwarding_up_command", _set(wanted.up_command)),
        ("vpn_port_forwarding_down_command", _set(wanted.down_command)),
    ):
        yield field.upper(), value, getattr(given, field)


def _block_lists(given: Settings) -> Iterator[tuple[str, str, Sourced[tuple[BlockList, ...]]]]:
    """Yield what lists of blocked names are fetched, if any is."""
    if chosen := given.dns_block_urls:
        yield "DNS_BLOCK_URLS", _list(it.shown for it in chosen.value), chosen


def _public_ip(loaded: Loaded) -> Iterator[tuple[str, str, Sourced[Any] | None]]:
    """Yield who is asked for the public address, if anyone is."""
    wanted, given = loaded.config.public_ip, loaded.values
    if wanted is None:
        return
    switch = given.publicip_api or given.publicip_enabled
    yield "PUBLICIP_API", _list(it.host for it in wanted.apis), switch
    if given.publicip_api_token:
        yield "PUBLICIP_API_TOKEN", "set", given.publicip_api_token
    yield "PUBLICIP_FILE", safe_text(wanted.file), given.publicip_file


def _port_client(
    config: Config, given: Settings
) -> Iterator[tuple[str, str, Sourced[ClientKind] | Sourced[ClientUrl] | Sourced[Secret] | None]]:
    """Yield which torrent client gets the forwarded port, if any does."""
    if client := config.port_client:
        yield "FORWARDED_PORT_CLIENT", client.kind.value, given.forwarded_port_client
        yield "FORWARDED_PORT_CLIENT_URL", str(client.url), given.forwarded_port_client_url
        user, password = given.forwarded_port_client_user, given.forwarded_port_client_password
        yield "FORWARDED_PORT_CLIENT_USER", _set(client.user), user
        yield "FORWARDED_PORT_CLIENT_PASSWORD", _set(client.password.reveal()), password


def _choice(given: Settings) -> Iterator[tuple[str, str, Sourced[tuple[str, ...]]]]:
    """Yield what chooses a server, where it is set."""
    for field in SERVER_FILTERS:
        chosen: Sourced[tuple[str, ...]] | None = getattr(given, field)
        if chosen:
            yield field.upper(), _list(map(safe_text, chosen.value)), chosen


def _set(value: object) -> str:
    return "set" if value else "none"


def _listens(server: HostPort) -> str:
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{host}:{server.port}"


def _probe(probe: HealthProbe) -> str:
    return f"{probe.kind}:{probe.address}" if probe.address else probe.kind.value


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"
