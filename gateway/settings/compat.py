"""Variables of other images: older names that mean the same, and those without a meaning here.

From gluetun's and linuxserver/wireguard's documentation. Every entry of `ELSEWHERE` is told once
when the variable is set: not needed because ..., or not supported: use ...
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from gateway.settings import misspelt
from gateway.settings.findings import Findings
from gateway.settings.values import named, unquoted

OLDER_NAMES: Final = {
    "VPN_ENDPOINT_IP": "WIREGUARD_ENDPOINT_IP",
    "VPN_ENDPOINT_PORT": "WIREGUARD_ENDPOINT_PORT",
    "WIREGUARD_ADDRESS": "WIREGUARD_ADDRESSES",
    "EXTRA_SUBNETS": "FIREWALL_OUTBOUND_SUBNETS",
    "DNS_PLAINTEXT_ADDRESS": "DNS_ADDRESS",
    "VPNSP": "VPN_SERVICE_PROVIDER",
}
"""Names that older compose files still have, with the variable that they mean."""

_KILL_SWITCH: Final = (
    "FIREWALL",
    "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT",
)
_OFF: Final = frozenset({"", "off", "no", "false", "0", "disabled"})

_PROVIDER: Final = (
    "not supported: use your provider's WireGuard file at /config/wg0.conf; it names one server"
)
_PROXY: Final = "not supported: use a proxy container with network_mode: service:gateway"
_RESOLVER: Final = (
    "not supported: use DNS_ADDRESS with a resolver in the tunnel, or 127.0.0.1 with a resolver "
    "container that has network_mode: service:gateway"
)
_OPENVPN: Final = "not supported: use WireGuard, the only protocol here"
_FORWARDING: Final = (
    "not supported: use FIREWALL_VPN_INPUT_PORTS with the port that your provider forwards"
)
_PROBE: Final = "not needed: health follows the handshakes of the tunnel and asks no third party"
_SERVER: Final = "not supported: use another image for a WireGuard server; this is a client"
_USER: Final = "not needed: the gateway writes no files that another user could own"
_PUBLIC_IP: Final = "not needed: no third party is asked for the public address"
_AMNEZIA: Final = "not supported: use a server that speaks plain WireGuard"

ELSEWHERE: Final = {
    # Of gluetun, the tunnel.
    "VPN_INTERFACE": "not needed: the interface is always wg0",
    "WIREGUARD_INTERFACE": "not needed: the interface is always wg0",
    "VPN_PORT_FORWARDING*": _FORWARDING,
    "PORT_FORWARDING*": _FORWARDING,
    "PORT_FORWARD_ONLY": _PROVIDER,
    "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING*": _FORWARDING,
    "WIREGUARD_J[0-9CM]*": _AMNEZIA,
    "WIREGUARD_[SHI][1-5]": _AMNEZIA,
    "WIREGUARD_ITIME": _AMNEZIA,
    "AMNEZIAWG_*": _AMNEZIA,
    "PMTUD_*": "not needed: use WIREGUARD_MTU where the uplink's packet size does not fit",
    "WIREGUARD_MTU_DISCOVERY*": "not needed: use WIREGUARD_MTU where the default does not fit",
    "OPENVPN_*": _OPENVPN,
    # Of gluetun, the choice of a server.
    "SERVER_REGIONS": _PROVIDER,
    "SERVER_COUNTRIES": _PROVIDER,
    "SERVER_CITIES": _PROVIDER,
    "SERVER_HOSTNAMES": _PROVIDER,
    "SERVER_NAMES": _PROVIDER,
    "SERVER_CATEGORIES": _PROVIDER,
    "SERVER_NUMBER": _PROVIDER,
    "SERVER_HOSTNAME": _PROVIDER,
    "SERVER_NAME": _PROVIDER,
    "REGION": _PROVIDER,
    "COUNTRY": _PROVIDER,
    "CITY": _PROVIDER,
    "ISP": _PROVIDER,
    "OWNED_ONLY": _PROVIDER,
    "STREAM_ONLY": _PROVIDER,
    "FREE_ONLY": _PROVIDER,
    "SECURE_CORE_ONLY": _PROVIDER,
    "TOR_ONLY": _PROVIDER,
    "MULTIHOP_ONLY": _PROVIDER,
    "PREMIUM_ONLY": _PROVIDER,
    "PRIVATE_INTERNET_ACCESS_*": _PROVIDER,
    "UPDATER_*": "not needed: there are no server lists to keep up to date",
    "STORAGE_FILEPATH": "not needed: there are no server lists to store",
    # Of gluetun, the firewall.
    "FIREWALL_DEBUG": "not needed: use LOG_LEVEL=debug, and `gateway check` for the rules",
    "FIREWALL_IPTABLES_LOG_LEVEL": "not needed: use LOG_LEVEL=debug",
    # Of gluetun, names.
    "DOT": _RESOLVER,
    "DOT_*": _RESOLVER,
    "DOH_*": _RESOLVER,
    "DNS_SERVER": _RESOLVER,
    "DNS_UPSTREAM_*": _RESOLVER,
    "DNS_CACHING": _RESOLVER,
    "DNS_BLOCK_*": _RESOLVER,
    "DNS_UNBLOCK_HOSTNAMES": _RESOLVER,
    "DNS_REBINDING_PROTECTION_*": _RESOLVER,
    "DNS_UPDATE_PERIOD": _RESOLVER,
    "DNS_OVER_TLS*": _RESOLVER,
    "DNS_KEEP_NAMESERVER": "not supported: use DNS_ADDRESS; the container's own resolver is asked "
    "outside the tunnel",
    "UNBLOCK": _RESOLVER,
    "BLOCK_MALICIOUS": _RESOLVER,
    "BLOCK_SURVEILLANCE": _RESOLVER,
    "BLOCK_NSA": _RESOLVER,
    "BLOCK_ADS": _RESOLVER,
    # Of gluetun, health.
    "HEALTH_TARGET_ADDRESS*": _PROBE,
    "HEALTH_ADDRESS_TO_PING": _PROBE,
    "HEALTH_ICMP_TARGET_IP*": _PROBE,
    "HEALTH_SMALL_CHECK_TYPE": _PROBE,
    "HEALTH_SUCCESS_WAIT_DURATION": _PROBE,
    "HEALTH_RESTART_VPN": "not needed: the tunnel is always brought back in place",
    "HEALTH_VPN_DURATION_*": "not needed: the tunnel is always brought back in place",
    "HEALTH_VPN_WAIT_*": "not needed: the tunnel is always brought back in place",
    "HEALTH_OPENVPN_DURATION_*": _OPENVPN,
    # Of gluetun, other servers and its surroundings.
    "HTTPPROXY*": _PROXY,
    "SHADOWSOCKS*": _PROXY,
    "SOCKS5*": _PROXY,
    "TINYPROXY*": _PROXY,
    "PROXY*": _PROXY,
    "HTTP_CONTROL_SERVER_*": "not supported: use GET /healthz on HEALTH_SERVER_ADDRESS",
    "METRICS_*": "not supported: use GET /healthz on HEALTH_SERVER_ADDRESS",
    "PUBLICIP_*": _PUBLIC_IP,
    "PUBLIC_IP_*": _PUBLIC_IP,
    "IP_STATUS_FILE": _PUBLIC_IP,
    "BORINGPOLL_*": "not needed: no third party is asked for anything",
    "VERSION_INFORMATION": "not needed: no third party is asked for newer versions",
    "IPV6_CHECK_ADDRESS*": "not needed: IPv6 follows the tunnel's addresses",
    "PPROF_*": "not supported: use LOG_LEVEL=debug",
    # Of linuxserver's image.
    "PUID": _USER,
    "PGID": _USER,
    "UID": _USER,
    "GID": _USER,
    "UMASK": _USER,
    "PEERS": _SERVER,
    "PEERDNS": _SERVER,
    "SERVERURL": _SERVER,
    "SERVERPORT": _SERVER,
    "INTERNAL_SUBNET": _SERVER,
    "SERVER_ALLOWEDIPS_PEER_*": _SERVER,
    "PERSISTENTKEEPALIVE_PEERS": _SERVER,
    "ALLOWEDIPS": "not supported: use AllowedIPs in wg0.conf or WIREGUARD_ALLOWED_IPS",
    "LOG_CONFS": "not needed: no key is ever logged",
    "USE_COREDNS": _RESOLVER,
    "DOCKER_MODS": "not supported: use an image of your own",
    "FILE__*": "not supported: use <VARIABLE>_SECRETFILE",
    "S6_*": "not needed: there is no s6 in this image",
    "LSIO_*": "not needed: the image is not based on linuxserver's",
    # Of other images around wg-quick.
    "LOCAL_NETWORK*": "not supported: use FIREWALL_OUTBOUND_SUBNETS",
    "ALLOWED_SUBNETS": "not supported: use FIREWALL_OUTBOUND_SUBNETS",
    "LAN_NETWORK": "not supported: use FIREWALL_OUTBOUND_SUBNETS",
    "VPN_INPUT_PORTS": "not supported: use FIREWALL_INPUT_PORTS",
    "VPN_OUTPUT_PORTS": "not needed: everything may leave through the tunnel",
    "FIREWALL_OUTPUT_PORTS": "not needed: everything may leave through the tunnel",
    "FIREWALL_VPN_OUTPUT_PORTS": "not needed: everything may leave through the tunnel",
    "VPN_ENABLED": "not needed: the tunnel is always wanted",
}  # fmt: skip
"""Names, or patterns of names, without a meaning here, each with the one line to tell."""

_KUBERNETES: Final = re.compile(
    r"\w+_SERVICE_HOST|\w+_SERVICE_PORT(_\w+)?|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
_LINK: Final = re.compile(r"(tcp|udp|sctp)://[\d.:\[\]a-f]+")


def check_names(environ: Mapping[str, str], known: frozenset[str], findings: Findings) -> None:
    """Tell what has no meaning here and refuse what looks like ours but is not in `known`."""
    current = frozenset(one for one in known if one.removesuffix("_SECRETFILE") not in OLDER_NAMES)
    for name in sorted(environ):
        text, said = unquoted(environ[name].strip()), named(name)
        if name in known or not text or _is_service_link(name, text):
            continue
        if name in _KILL_SWITCH:
            _check_kill_switch(name, text, findings)
        elif line := _elsewhere(name):
            tell = findings.tell if line.startswith("not needed") or text.lower() in _OFF else None
            (tell or findings.warn)(said, line)
        elif name.upper() in known:
            told = f"unknown; variables are written in capitals: {name.upper()}"
            findings.wrong(said, told)
        else:
            misspelt.check(name, current, findings)


def _is_service_link(name: str, text: str) -> bool:
    """Say whether Kubernetes put the variable there for a Service that is called like us."""
    return bool(_KUBERNETES.fullmatch(name)) or (
        name.endswith("_PORT") and bool(_LINK.fullmatch(text))
    )


def _elsewhere(name: str) -> str | None:
    exact = ELSEWHERE.get(name)
    return exact or next(
        (line for pattern, line in ELSEWHERE.items() if fnmatchcase(name, pattern)), None
    )


def _check_kill_switch(name: str, text: str, findings: Findings) -> None:
    if text.lower() in _OFF:
        findings.wrong(
            name,
            "the firewall cannot be switched off; remove this variable, and list what may pass in "
            "FIREWALL_OUTBOUND_SUBNETS and FIREWALL_INPUT_PORTS",
        )
    else:
        findings.tell(name, "not needed: the firewall is always on")
