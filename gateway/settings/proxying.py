"""The proxies that the variables describe: who may use them, and what is missing for that."""

from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

from gateway.model import HostPort, Network, PortRange, Protocol, Secret
from gateway.model.proxies import HERE, Account, HttpProxy, Proxy, SocksProxy
from gateway.settings.findings import Findings
from gateway.settings.schema_proxies import ProxySettings
from gateway.settings.sourced import Sourced
from gateway.settings.sources import Variables

HTTP_DEFAULT: Final = HostPort("", 8888)
SOCKS_DEFAULT: Final = HostPort("", 1080)


class _Given(NamedTuple):
    """The variables of one proxy; `prefix` begins their names, `switch` turns it on."""

    prefix: str
    switch: str
    enabled: Sourced[bool] | None
    listening: HostPort
    user: Sourced[str] | None
    password: Sourced[Secret] | None
    subnets: Sourced[tuple[Network, ...]] | None


def settle(
    variables: Variables,
    input_ports: Sequence[PortRange],
    others: Mapping[str, HostPort],
    findings: Findings,
) -> tuple[HttpProxy | None, SocksProxy | None]:
    """Return the proxies that are wanted; report what is wrong or missing.

    `others` are where servers of the gateway listen, each with what it is.
    """
    given = variables.values
    http = _Given(
        "HTTPPROXY_",
        "HTTPPROXY",
        given.httpproxy,
        _value(given.httpproxy_listening_address, HTTP_DEFAULT),
        given.httpproxy_user,
        given.httpproxy_password,
        given.httpproxy_allowed_subnets,
    )
    socks = _Given(
        "SOCKS5_",
        "SOCKS5_ENABLED",
        given.socks5_enabled,
        _value(given.socks5_listening_address, SOCKS_DEFAULT),
        given.socks5_user,
        given.socks5_password,
        given.socks5_allowed_subnets,
    )
    for it in (http, socks):
        _check_account(it, variables.unreadable, findings)
    return _proxies(
        given,
        _settled(http, input_ports, findings),
        _settled(socks, input_ports, findings),
        others,
        findings,
    )


def _proxies(
    given: ProxySettings,
    http: Proxy | None,
    socks: Proxy | None,
    others: Mapping[str, HostPort],
    findings: Findings,
) -> tuple[HttpProxy | None, SocksProxy | None]:
    _check_places(http, socks, others, findings)
    logs = bool(given.httpproxy_log and given.httpproxy_log.value)
    stealth = bool(given.httpproxy_stealth and given.httpproxy_stealth.value)
    return (
        HttpProxy(http.listening, http.account, http.subnets, logs, stealth) if http else None,
        SocksProxy(socks.listening, socks.account, socks.subnets) if socks else None,
    )


def _check_account(it: _Given, unreadable: Collection[str], findings: Findings) -> None:
    """Refuse one half of an account; one that could not be read is reported already."""
    user, password = f"{it.prefix}USER", f"{it.prefix}PASSWORD"
    if it.user and not it.password and password.lower() not in unreadable:
        findings.problem(it.user.origin.where, f"has no password; set {password}, or remove it")
    if it.password and not it.user and user.lower() not in unreadable:
        findings.problem(it.password.origin.where, f"has no user name; set {user}, or remove it")


def _settled(it: _Given, input_ports: Sequence[PortRange], findings: Findings) -> Proxy | None:
    if it.enabled is None or not it.enabled.value:
        return None
    account = Account(it.user.value, it.password.value) if it.user and it.password else None
    listed = it.subnets.value if it.subnets else None
    _check_way(it, input_ports, findings)
    if account is None and listed is None and not _is_local(it.listening):
        findings.warn(
            it.switch,
            "only workloads of this namespace may use the proxy: it asks for no password, and no "
            f"subnet is listed; set {it.prefix}USER and {it.prefix}PASSWORD, or list who may use "
            f"it without them, such as {it.prefix}ALLOWED_SUBNETS=127.0.0.0/8,192.168.0.0/16",
        )
    return Proxy(it.listening, account, listed or (None if account else HERE))


def _check_way(it: _Given, input_ports: Sequence[PortRange], findings: Findings) -> None:
    """Report a proxy that listens for others while no rule lets them in."""
    port = it.listening.port
    is_listed = any(
        entry.protocol is Protocol.TCP and entry.first <= port <= entry.last
        for entry in input_ports
    )
    if not is_listed and not _is_local(it.listening):
        others = ",".join(map(str, input_ports))
        line = f"{others},{port}/tcp" if others else f"{port}/tcp"
        findings.warn(
            it.switch,
            f"port {port} of the proxy can be reached only from this namespace; for others, set "
            f"FIREWALL_INPUT_PORTS={line}",
        )


def _check_places(
    http: Proxy | None,
    socks: Proxy | None,
    others: Mapping[str, HostPort],
    findings: Findings,
) -> None:
    """Refuse two servers at one port, whose addresses may overlap."""
    taken = {53: "the resolver"} | {place.port: what for what, place in others.items()}
    for proxy, variable in (
        (http, "HTTPPROXY_LISTENING_ADDRESS"),
        (socks, "SOCKS5_LISTENING_ADDRESS"),
    ):
        if proxy is None:
            continue
        port = proxy.listening.port
        if port in taken:
            findings.problem(
                variable, f"port {port} is that of {taken[port]}; write another port, such as :8889"
            )
        taken[port] = f"the HTTP proxy ({variable})"


def _is_local(place: HostPort) -> bool:
    return bool(place.host) and ip_address(place.host).is_loopback


def _value(given: Sourced[HostPort] | None, default: HostPort) -> HostPort:
    return given.value if given else default
