"""Configurations to load in tests: made-up keys, a whole set of variables, files in a root."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.commands.check.trial import try_compose
from gateway.errors import ConfigError
from gateway.settings import assemble
from gateway.settings.assemble import Loaded


def made_up_key(number: int) -> str:
    """Return a key of no real server: the base64 form of 32 equal bytes."""
    return b64encode(bytes([number]) * 32).decode()


PRIVATE = made_up_key(1)
PUBLIC = made_up_key(2)
PRESHARED = made_up_key(3)
OTHER_PRIVATE = made_up_key(11)
OTHER_PUBLIC = made_up_key(12)

COMPLETE = {
    "WIREGUARD_PRIVATE_KEY": PRIVATE,
    "WIREGUARD_PUBLIC_KEY": PUBLIC,
    "WIREGUARD_ADDRESSES": "10.64.1.2/32,fd7d::2/128",
    "WIREGUARD_ENDPOINT_IP": "203.0.113.7",
    "WIREGUARD_ENDPOINT_PORT": "51820",
    "DNS_ADDRESS": "10.64.0.1",
}
"""The least that connects and resolves names, in variables alone."""

QUICK = f"""\
[Interface]
PrivateKey = {OTHER_PRIVATE}
Address = 10.2.0.2/32
DNS = 10.2.0.1

[Peer]
PublicKey = {OTHER_PUBLIC}
AllowedIPs = 0.0.0.0/0
Endpoint = 198.51.100.9:51820
"""
"""The least that connects and resolves names, as a wg-quick file."""


FAULTS = [
    ("PUBLICIP_ENABLED", "perhaps", "must be on or true"),
    ("PUBLICIP_API", "whatismyip", "'whatismyip' is not a service"),
    ("PUBLICIP_API_TOKEN", "t" * 201, "at most 200 ASCII characters"),
    ("PUBLICIP_FILE", "ip", "must be an absolute path"),
    ("WIREGUARD_PRIVATE_KEY", "short", "44"),
    ("WIREGUARD_PRIVATE_KEY", "=", "it has 1 character, a key has 44"),
    ("WIREGUARD_PRIVATE_KEY", "0123456789abcdef" * 4, "are an access token of NordVPN"),
    ("FIREWALL_INPUT_PORTS", "80:8080", "is a pair of ports; write the one in the container"),
    ("WIREGUARD_ADDRESSES", "10.0.0.300/32", "'10.0.0.300/32' is not an address"),
    ("WIREGUARD_PUBLIC_KEY", "short", "44"),
    ("WIREGUARD_PRESHARED_KEY", "short", "44"),
    ("WIREGUARD_ENDPOINT_IP", "10.0.0", "'10.0.0' is neither an IP address nor a name"),
    ("WIREGUARD_ENDPOINT_RESOLVER", "dns.example", "'dns.example' is not an IP address"),
    ("VPN_UP_COMMAND", "say 'hello", "has an unclosed quote"),
    ("VPN_DOWN_COMMAND", 'say "hello', "has an unclosed quote"),
    ("HEALTH_PROBE", "http", "must be auto or dns or icmp or off, got 'http'"),
    ("HEALTH_PROBE", "dns:10.0.0.1", "has an address, which only icmp takes"),
    ("HTTP_CONTROL_SERVER_ADDRESS", "8000", "has no address; write 127.0.0.1:8000"),
    ("HTTP_CONTROL_SERVER_API_KEY", "too short", "ASCII characters without spaces"),
    ("HTTP_CONTROL_SERVER_API_KEY", "tooshort", "fewer than 16 characters"),
    ("HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH", "here", "must be an absolute path, got 'here'"),
    ("HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE", "apikey", "is not a JSON object"),
    ("WIREGUARD_ENDPOINT_IP", "203.0.113.7:51820", "WIREGUARD_ENDPOINT_PORT"),
    ("WIREGUARD_ENDPOINT_PORT", "99999", "must be 1 to 65535, got '99999'"),
    ("WIREGUARD_ENDPOINTS", "203.0.113.7", "has no port"),
    ("WIREGUARD_ALLOWED_IPS", "everything", "'everything' is not a subnet"),
    ("WIREGUARD_MTU", "9", "must be 576 to 65535 bytes, got '9'"),
    ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "often", "duration in whole seconds such as 25s"),
    ("WIREGUARD_IMPLEMENTATION", "amneziawg", "must be auto or kernelspace or userspace"),
    ("WIREGUARD_CONF_SECRETFILE", "wg0.conf", "must be an absolute path"),
    ("WIREGUARD_CONF_SECRETFILE", "/there/is/none.conf", "mount the file there"),
    ("VPN_SERVICE_PROVIDER", "<mine>", "'<mine>' is not the name of a provider; write custom"),
    ("OPENVPN_USER", "p1\n2", "must be one line"),
    ("OPENVPN_PASSWORD", "x" * 201, "must be one line"),
    ("PORT_FORWARD_ONLY", "maybe", "must be"),
    ("VPN_TYPE", "openvpn", "must be wireguard, got 'openvpn'"),
    ("SERVER_COUNTRIES", "#,??", "'#' has no letters; write a name as the provider does; '??'"),
    ("SERVER_REGIONS", "...", "'...' has no letters"),
    ("SERVER_CITIES", "...", "'...' has no letters"),
    ("SERVER_NAMES", "...", "'...' has no letters"),
    ("SERVER_HOSTNAMES", "...", "'...' has no letters"),
    ("SERVER_CATEGORIES", "...", "'...' has no letters"),
    ("ISP", "...", "'...' has no letters"),
    ("OWNED_ONLY", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("FIREWALL_INPUT_PORTS_WHILE_DOWN", "sometimes", "must be on or true or yes or 1 or off or"),
    ("PORTCULLIS_HOST", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("SERVER_ORDER", "fastest", "must be random or listed or latency, got 'fastest'"),
    ("UPDATER_PERIOD", "daily", "must be a duration in whole seconds such as 25s"),
    ("FIREWALL_OUTBOUND_SUBNETS", "0.0.0.0/0", "0.0.0.0/0 is everything"),
    ("FIREWALL_INPUT_PORTS", "http", "'http' is not a port"),
    ("FIREWALL_VPN_INPUT_PORTS", "9-1", "write 1-9"),
    ("FIREWALL_BACKEND", "pf", "must be auto or iptables or nftables, got 'pf'"),
    ("DNS_ADDRESS", "127.0.0.11", "Docker's resolver"),
    ("DNS_SERVER", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("DNS_CACHING", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("DNS_HIJACK", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("DNS_UPSTREAM_RESOLVER_TYPE", "doh", "doh is not supported; write dot"),
    ("DNS_UPSTREAM_RESOLVERS", "cloudfare", "'cloudfare' is not in the list"),
    ("DNS_UPSTREAM_RESOLVERS", "192.0.2.53@853", "does not say which name the certificate has"),
    ("DNS_UPSTREAM_RESOLVERS", "127.0.0.1@853#a.example", "where the gateway's own resolver"),
    ("DNS_UPSTREAM_PLAIN_ADDRESSES", "192.0.2.53:99999", "must be 1 to 65535"),
    ("DNS_UPSTREAM_PLAIN_ADDRESSES", "127.0.0.1", "where the gateway's own resolver listens"),
    ("DNS_DNSSEC", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("DNS_BLOCK_URLS", "http://lists.example/ads", "is not encrypted"),
    ("DNS_BLOCK_URLS", "lists.example", "does not begin with https:// and the name of a host"),
    ("DNS_BLOCK_URLS", "https://203.0.113.7/ads", "does not begin with https://"),
    ("DNS_BLOCK_URLS", "https://me:pw@lists.example/", "has a user or a password in it"),
    ("DNS_BLOCK_URLS", "https://lists.example:x/", "is not a URL; write https://host/path"),
    ("DNS_BLOCK_URLS", ",".join(f"https://l{i}.example/" for i in range(9)), "more than 8 lists"),
    ("DNS_UPDATE_PERIOD", "daily", "must be a duration in whole seconds such as 25s"),
    ("DNS_BLOCK_FILES", "list", "must be an absolute path in the container"),
    ("DNS_UNBLOCK_HOSTNAMES", "-", "is not a domain"),
    ("DNS_LOCAL_ZONES", "home.lan", "'home.lan' has no resolver"),
    ("DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES", "a b", "write commas between entries"),
    ("DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES", "-", "is not a domain"),
    ("HTTPPROXY", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("HTTPPROXY_LISTENING_ADDRESS", "here", "has no port"),
    ("HTTPPROXY_USER", "a b", "may have letters, digits, '.', '_' and '-' only"),
    ("HTTPPROXY_PASSWORD", "a@b", "may have letters, digits, '.', '_' and '-' only"),
    ("HTTPPROXY_ALLOWED_SUBNETS", "home", "'home'"),
    ("HTTPPROXY_LOG", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("HTTPPROXY_STEALTH", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("SOCKS5_ENABLED", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("SOCKS5_LISTENING_ADDRESS", "::1:1080", "is ambiguous"),
    ("SOCKS5_USER", "x" * 256, "at most 255 bytes"),
    ("SOCKS5_PASSWORD", "x" * 256, "at most 255 bytes"),
    ("SOCKS5_ALLOWED_SUBNETS", "home", "'home'"),
    ("FORWARDED_PORT_CLIENT", "rtorrent", "must be qbittorrent or transmission or deluge"),
    ("FORWARDED_PORT_CLIENT_URL", "127.0.0.1:8080", "does not begin with http:// and an address"),
    ("FORWARDED_PORT_CLIENT_URL", "http://qbittorrent:8080", "'qbittorrent' is not an address"),
    ("FORWARDED_PORT_CLIENT_URL", "http://me:pw@127.0.0.1", "has a user or a password in it"),
    ("FORWARDED_PORT_CLIENT_URL", "http://127.0.0.1:x", "is not a URL; write http://"),
    ("FORWARDED_PORT_CLIENT_URL", "http://127.0.0.1/a b", "is not a URL of at most 200"),
    ("FORWARDED_PORT_CLIENT_URL", "http://127.0.0.1/?a", "has a part after ? or #"),
    ("FORWARDED_PORT_CLIENT_URL", "https://192.168.1.5", "which works on loopback only"),
    ("FORWARDED_PORT_CLIENT_USER", "u" * 201, "must be one line of at most 200 characters"),
    ("FORWARDED_PORT_CLIENT_PASSWORD", "p" * 201, "must be one line of at most 200 characters"),
    ("VPN_PORT_FORWARDING", "maybe", "must be on or true or yes or 1 or off or false or no or 0"),
    ("VPN_PORT_FORWARDING_PROVIDER", "upnp", "must be one of custom, protonvpn, natpmp, pcp"),
    ("VPN_PORT_FORWARDING_GATEWAY", "fd00::1", "ports are asked for over IPv4"),
    ("VPN_PORT_FORWARDING_GATEWAY", "127.0.0.1", "is not a host in the tunnel"),
    ("VPN_PORT_FORWARDING_LISTENING_PORTS", "6881,6881", "has a port twice"),
    ("VPN_PORT_FORWARDING_LISTENING_PORTS", "1,2,3,4,5,6", "at most 5 are asked for"),
    ("VPN_PORT_FORWARDING_PORTS_COUNT", "0", "must be a number from 1 to 5, got '0'"),
    ("VPN_PORT_FORWARDING_PORTS_COUNT", "9", "must be a number from 1 to 5, got '9'"),
    ("VPN_PORT_FORWARDING_STATUS_FILE", "port.txt", "must be an absolute path in the container"),
    ("VPN_PORT_FORWARDING_UP_COMMAND", "say 'hello", "has an unclosed quote"),
    ("VPN_PORT_FORWARDING_DOWN_COMMAND", "say 'hello", "has an unclosed quote"),
    ("HEALTH_SERVER_ADDRESS", "9999", "has no address; write 127.0.0.1:9999"),
    ("LOG_LEVEL", "loud", "must be debug or info or warning or error, got 'loud'"),
    ("LOG_FORMAT", "xml", "must be text or json or auto or console, got 'xml'"),
]
"""(variable, wrong value, what the refusal says): at least one for every variable."""


def put(root: Path, path: str, text: str | bytes, mode: int = 0o600) -> None:
    """Write a file at the container's `path` below `root`."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)


def load_service(file: Path, service: str, environ: Mapping[str, str]) -> Loaded:
    """Load what a service of a compose file would have; see `try_compose`. Raises ConfigError."""
    return try_compose(file, service, environ).result()


def problems(environ: Mapping[str, str], root: Path) -> list[str]:
    """Return the problems of a configuration that must be refused."""
    with pytest.raises(ConfigError) as caught:
        assemble.load(environ, root)
    return [str(problem) for problem in caught.value.problems]


def reported(loaded: Loaded) -> str:
    """Return all notices, one a line."""
    return "\n".join(map(str, loaded.notices))


def shown_from(loaded: Loaded, name: str, origin: str) -> bool:
    """Return whether `gateway check` shows `origin` for the first value of a variable."""
    rows = (line for line in explain(loaded).splitlines() if line.startswith(f"  {name} "))
    return next(rows).endswith(f" {origin}")
