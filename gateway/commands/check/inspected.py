"""Reads what `docker inspect` prints about a container that runs.

Docker does not say which variables come from the image, so the defaults of gluetun's are left out.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.commands.check.mounting import as_list, as_mapping
from gateway.commands.check.translation import Translated, choose, literal
from gateway.settings.findings import Findings

_COMPOSE_SERVICE: Final = "com.docker.compose.service"

_IMAGES_OWN: Final = ("gluetun-entrypoint", "/init", "/opt/portcullis/", "docker-entrypoint")
"""Parts of entrypoints and health checks that images bring along."""

_DEFAULTS: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(values.split("|"))
    for name, values in (
        pair.split("=", 1)
        for pair in (
            *("VPN_SERVICE_PROVIDER=pia|private internet access", "VPN_TYPE=openvpn"),
            *("VPN_INTERFACE=tun0", "OPENVPN_PROTOCOL=udp", "OPENVPN_VERSION=2.5|2.6"),
            *("OPENVPN_VERBOSITY=1", "OPENVPN_PROCESS_USER=root", "OPENVPN_FLAGS="),
            *("WIREGUARD_CONF_SECRETFILE=/run/secrets/wg0.conf", "WIREGUARD_IMPLEMENTATION=auto"),
            *("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL=0", "WIREGUARD_MTU=1400|1320"),
            *("WIREGUARD_ALLOWED_IPS=0.0.0.0/0,::/0", "VPN_PORT_FORWARDING=off"),
            *("VPN_PORT_FORWARDING_LISTENING_PORT=0", "VPN_PORT_FORWARDING_LISTENING_PORTS=0"),
            *("VPN_PORT_FORWARDING_PORTS_COUNT=1", "OWNED_ONLY=no", "DNS_SERVER=on"),
            "VPN_PORT_FORWARDING_STATUS_FILE=/tmp/gluetun/forwarded_port",
            *("FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT=on", "FIREWALL=on"),
            *("FIREWALL_DEBUG=off", "FIREWALL_IPTABLES_LOG_LEVEL=info", "LOG_LEVEL=info"),
            *("HEALTH_SERVER_ADDRESS=127.0.0.1:9999", "HEALTH_SUCCESS_WAIT_DURATION=5s"),
            *("HEALTH_TARGET_ADDRESS=cloudflare.com:443", "HEALTH_SMALL_CHECK_TYPE=icmp"),
            "HEALTH_TARGET_ADDRESSES=cloudflare.com:443,github.com:443",
            *("HEALTH_ICMP_TARGET_IP=1.1.1.1", "HEALTH_ICMP_TARGET_IPS=1.1.1.1,8.8.8.8"),
            *("HEALTH_VPN_DURATION_INITIAL=6s", "HEALTH_VPN_DURATION_ADDITION=5s"),
            *("HEALTH_RESTART_VPN=on", "DNS_ADDRESS=127.0.0.1", "DNS_KEEP_NAMESERVER=off"),
            *("DOT=on", "DOT_PROVIDERS=cloudflare", "DOT_VERBOSITY=1", "DOT_CACHING=on"),
            *("DOT_VERBOSITY_DETAILS=0", "DOT_VALIDATION_LOGLEVEL=0", "DOT_IPV6=off"),
            *("DNS_UPSTREAM_RESOLVER_TYPE=DoT|dot", "DNS_UPSTREAM_RESOLVERS=cloudflare"),
            *("DNS_CACHING=on", "DNS_UPSTREAM_IPV6=off", "DNS_UPDATE_PERIOD=24h"),
            *("BLOCK_MALICIOUS=on", "BLOCK_SURVEILLANCE=off", "BLOCK_ADS=off"),
            *("HTTPPROXY=off", "HTTPPROXY_LOG=off", "HTTPPROXY_LISTENING_ADDRESS=:8888"),
            *("HTTPPROXY_STEALTH=off", "SHADOWSOCKS=off", "SHADOWSOCKS_LOG=off"),
            "SHADOWSOCKS_LISTENING_ADDRESS=:8388",
            *("SHADOWSOCKS_CIPHER=chacha20-ietf-poly1305", "HTTP_CONTROL_SERVER_LOG=on"),
            *("HTTP_CONTROL_SERVER_ADDRESS=:8000", "HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE={}"),
            "HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH=/gluetun/auth/config.toml",
            *("UPDATER_PERIOD=0", "UPDATER_MIN_RATIO=0.8", "UPDATER_PREFER_DIRECT_DOWNLOAD=no"),
            *("PUBLICIP_FILE=/tmp/gluetun/ip", "PUBLICIP_ENABLED=on"),
            "PUBLICIP_API=ipinfo,ifconfigco,ip2location,cloudflare|ipinfo",
            *("PUBLICIP_PERIOD=12h", "STORAGE_FILEPATH=/gluetun/servers.json"),
            *("STORAGE_SERVERS_ENABLED=on", "STORAGE_SERVERS_DIRECTORY_PATH=/gluetun/servers/"),
            *("PPROF_ENABLED=no", "PPROF_BLOCK_PROFILE_RATE=0", "PPROF_MUTEX_PROFILE_RATE=0"),
            *("PPROF_HTTP_SERVER_ADDRESS=:6060", "VERSION_INFORMATION=on"),
            *("PUID=1000|", "PGID=1000|"),
        )
    )
}
"""Defaults of the variables in gluetun's image, of several versions. Source: its Dockerfile."""

_DEFAULT_ENDINGS: Final = ("_SECRETFILE",)
"""Ends of names of its variables whose default is a place where Docker puts secrets."""

_DEFAULT_BEGINNINGS: Final = ("AMNEZIAWG_", "PMTUD_", "IPV6_CHECK_")


def translate_inspect(text: str, wanted: str | None, where: str, findings: Findings) -> Translated:
    """Return what `docker inspect` says about one or several containers, as a compose document.

    Raises ConfigError if it is not that, or has not the container that is `wanted`.
    """
    try:
        content = json.loads(text)
        found = {_name_of(one): _service(one) for one in map(as_mapping, as_list(content))}
        document = {"services": literal({name: one for name, one in found.items() if name})}
    except (ValueError, RecursionError):
        findings.problem(where, "is not what `docker inspect` prints for a container")
        raise findings.to_error() from None
    images = {name: str(one.get("image", "")) for name, one in found.items()}
    name = choose([*document["services"]], images, wanted, where, findings)
    return Translated(document, name, "arguments")


def _name_of(container: Mapping[str, Any]) -> str:
    labels = as_mapping(as_mapping(container.get("Config")).get("Labels"))
    return str(labels.get(_COMPOSE_SERVICE) or container.get("Name") or "").removeprefix("/")


def _service(container: Mapping[str, Any]) -> dict[str, Any]:
    config = as_mapping(container.get("Config"))
    host = as_mapping(container.get("HostConfig"))
    service: dict[str, Any] = {
        "image": config.get("Image"),
        "container_name": str(container.get("Name", "")).removeprefix("/"),
        "environment": _written(as_list(config.get("Env"))),
        "ports": [
            f"{as_mapping(binding).get('HostPort', '')}:{port}"
            for port, bindings in as_mapping(host.get("PortBindings")).items()
            for binding in as_list(bindings)
        ],
        "volumes": [
            {"type": "bind", "source": one.get("Source", ""), "target": one.get("Destination", "")}
            for one in map(as_mapping, as_list(container.get("Mounts")))
        ],
        "cap_add": as_list(host.get("CapAdd")),
        "cap_drop": as_list(host.get("CapDrop")),
        "privileged": str(bool(host.get("Privileged"))).lower(),
        "read_only": str(bool(host.get("ReadonlyRootfs"))).lower(),
        "tmpfs": [*as_mapping(host.get("Tmpfs"))],
        "labels": as_mapping(config.get("Labels")),
        "user": config.get("User"),
        "hostname": config.get("Hostname"),
    }
    mode = str(host.get("NetworkMode", ""))
    if mode in {"host", "none"} or mode.startswith("container:"):
        service["network_mode"] = mode
    for key, value in (
        ("entrypoint", config.get("Entrypoint")),
        ("command", config.get("Cmd")),
        ("healthcheck", config.get("Healthcheck")),
    ):
        if value and not any(own in str(value) for own in _IMAGES_OWN):
            test = as_mapping(value).get("Test")
            service[key] = {"test": test} if key == "healthcheck" else value
    return service


def _written(entries: list[Any]) -> list[str]:
    """Return the variables that are not the image's own."""
    return [
        str(entry)
        for entry in entries
        for name, _, value in (str(entry).partition("="),)
        if value
        and value not in _DEFAULTS.get(name, ())
        and not (name.endswith(_DEFAULT_ENDINGS) and value == _secret_of(name))
        and not name.startswith(_DEFAULT_BEGINNINGS)
    ]


def _secret_of(variable: str) -> str:
    return "/run/secrets/" + variable.removesuffix("_SECRETFILE").lower()
