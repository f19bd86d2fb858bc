"""Reads all sources, checks the values against each other, and builds the `Config`.

sources -> schema (pydantic-settings) -> tunnels, with quickfiles -> checks -> Loaded
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gateway.errors import Notice
from gateway.model import (
    Backend,
    Config,
    HealthProbe,
    Implementation,
    ProbeKind,
    ServerList,
)
from gateway.model.frozen import frozen
from gateway.model.name_server import NameServer
from gateway.settings import (
    block_urls,
    checks,
    compat,
    control_roles,
    filters,
    forwarding,
    hosts,
    listed,
    looked_up,
    moving,
    passing,
    places,
    proxying,
    quickfiles,
    registering,
    reserved,
    resolving,
    timed,
    tunnels,
    yielding,
)
from gateway.settings.early import DEFAULT_HEALTH_SERVER, LogSettings, log_settings
from gateway.settings.fields import Order
from gateway.settings.findings import Findings
from gateway.settings.places import ConfFile
from gateway.settings.schema import Settings
from gateway.settings.sourced import Sourced
from gateway.settings.sources import Variables, read_variables
from gateway.settings.subnets import against_tunnel, outbound_subnets, public_subnets
from gateway.settings.tunnels import SourcedTunnel

T = TypeVar("T")


@frozen
class Loaded:
    """The configuration, the notices about it, and its values with their origins.

    `tunnels` are `config.tunnels` with origins, in the same order. `values` are the variables.
    """

    config: Config
    notices: tuple[Notice, ...]
    tunnels: tuple[SourcedTunnel, ...]
    values: Settings
    log: LogSettings


def load(environ: Mapping[str, str], root: Path = Path("/")) -> Loaded:
    """Read the configuration from `environ` and from the files under `root`.

    Raises ConfigError with every problem there is; no message holds a secret.
    """
    findings, of_files = Findings(), Findings()
    compat.check_names(environ, findings)
    variables = read_variables(environ, root, findings)
    named = variables.values.wireguard_conf_secretfile
    found = places.find(root, named.value if named else None, of_files)
    wanted = filters.wanted(root, found, variables.values, of_files)
    candidates = _candidates(variables, wanted, root, (findings, of_files), environ)
    name_server, built = resolving.settle(variables.values, candidates.tunnels, findings)
    blocked = resolving.block_files(variables.values, root, findings) if name_server else ()
    config = _config(variables, built, name_server, findings)
    address = looked_up.settle(variables.values, findings)
    control = control_roles.control(variables.values, root, findings)
    findings.group([str(file.path) for file in wanted])
    if findings.problems or config is None:
        raise findings.to_error()
    config = replace(config, server_list=candidates.listed, public_ip=address, control=control)
    order = variables.values.server_order
    if order and order.value is Order.LATENCY:
        config = replace(config, latency=timed.latency(config.tunnels, root, findings))
    if name_server:
        known = hosts.host_names(root, findings)
        name_server = block_urls.with_copies(name_server, root)
        config = replace(config, name_server=name_server)
        config = replace(config, host_names=known, block_files=blocked)
    notices = tuple(findings.notices)
    return Loaded(config, notices, built, variables.values, log_settings(environ))


@frozen
class _Candidates:
    """The candidate tunnels, and the provider's list that they come from, if any."""

    tunnels: tuple[SourcedTunnel, ...] = ()
    listed: ServerList | None = None


def _candidates(
    variables: Variables,
    wanted: Sequence[ConfFile],
    root: Path,
    both: tuple[Findings, Findings],
    environ: Mapping[str, str],
) -> _Candidates:
    """Return the candidate tunnels; none when a file cannot be read.

    Of both findings, those of files come after those of variables.
    """
    findings, of_files = both
    named = variables.values.wireguard_conf_secretfile
    where = (
        "WIREGUARD_CONF_SECRETFILE" if named and wanted and wanted[0].path == named.value else ""
    )
    read = [quickfiles.read(root, one, of_files, where) for one in wanted]
    files = [file for file in read if file]
    variables = yielding.settle(variables, files, findings)
    findings.include(of_files)
    chosen = bool(wanted) or not of_files.problems
    if not chosen or None in read or "wireguard_conf_secretfile" in variables.unreadable:
        return _Candidates()
    if not yielding.is_to_be_listed(variables, files, findings):
        if not files and _is_of_another_image(variables, environ, findings):
            return _Candidates()
        registering.report_unused(variables, findings)
        return _Candidates(tunnels.build(variables, files, findings))
    choice = listed.choose(variables, root, findings)
    return _chosen(choice, findings) if choice else _Candidates()


def _is_of_another_image(
    variables: Variables, environ: Mapping[str, str], findings: Findings
) -> bool:
    """Report the variables of another image where no key is given; return whether they are that.

    VPN_TYPE=openvpn has been reported, with what is needed in its place.
    """
    if variables.values.wireguard_private_key or "wireguard_private_key" in variables.unreadable:
        return False
    other = moving.recognized(environ)
    if other:
        findings.problem(other.where, other.message)
    return bool(other) or "vpn_type" in variables.unreadable


def _chosen(choice: listed.Choice, findings: Findings) -> _Candidates:
    """Return the candidates of a provider, or the one that says what is to be requested."""
    missing = choice.listed if choice.is_missing else None
    built = [
        each
        for variables in choice.variables
        for each in tunnels.build(variables, (), findings, missing)
    ]
    if choice.registration:
        built = [replace(it, listed=None, registration=choice.registration) for it in built]
    return _Candidates(tuple(built), choice.listed)


def _config(
    variables: Variables,
    candidates: Sequence[SourcedTunnel],
    name_server: NameServer | None,
    findings: Findings,
) -> Config | None:
    """Check the values against each other; return the configuration, None without a tunnel."""
    given = variables.values
    subnets = outbound_subnets(given.firewall_outbound_subnets, candidates, findings)
    public = public_subnets(subnets, _where(given.firewall_outbound_subnets), findings)
    input_ports = checks.ports(given.firewall_input_ports, findings)
    reserved.check_subnets(subnets, _where(given.firewall_outbound_subnets), findings)
    checks.last_port(input_ports, _where(given.firewall_input_ports), findings)
    vpn_input_ports = checks.ports(given.firewall_vpn_input_ports, findings)
    leased = forwarding.settle(given, candidates, findings)
    port_client = passing.settle(given, vpn_input_ports, subnets, leased, findings)
    resolving.check_local_zones(name_server, subnets, findings)
    health_server = _value(given.health_server_address, DEFAULT_HEALTH_SERVER)
    probe = _value(given.health_probe, None)
    checks.health_server(health_server, input_ports, findings)
    control_server = _value(given.http_control_server_address, None)
    while_down = _value(given.firewall_input_ports_while_down, default=True)
    control_roles.check_reachable(
        control_server, health_server, input_ports, findings, while_down=while_down
    )
    checks.probe_outside(probe, subnets, findings)
    servers = {"the health server (HEALTH_SERVER_ADDRESS)": health_server}
    if control_server:
        servers["the control server (HTTP_CONTROL_SERVER_ADDRESS)"] = control_server
    http_proxy, socks_proxy = proxying.settle(variables, input_ports, servers, findings)
    for tunnel in candidates:
        checks.check_tunnel(tunnel, findings)
        reserved.check_tunnel(tunnel, findings)
        where = _where(given.firewall_outbound_subnets)
        against_tunnel(subnets, tunnel, where, findings)
        checks.resolvers(tunnel, subnets, findings)
        asks_ours = name_server is not None and not tunnel.dns.value
        by_ours = asks_ours and probe and probe.kind is ProbeKind.DNS
        if tunnel.addresses.value and not by_ours:  # else they are not known yet
            checks.probe_inside(probe, tunnel, subnets, findings)
        checks.endpoint_resolver(given.wireguard_endpoint_resolver, tunnel, findings)
        checks.listen_port(tunnel, input_ports, _where(given.firewall_input_ports), findings)
    if not candidates:
        return None
    named = candidates[0].dns.value or name_server or "dns_address" in variables.unreadable
    if not named:
        findings.warn(
            "DNS_ADDRESS",
            "is not set, so no names resolve with DNS_SERVER=off; write your provider's resolver, "
            "often called DNS in its WireGuard file, or remove DNS_SERVER",
        )
    return Config(
        tunnels=tuple(each.tunnel for each in candidates),
        outbound_subnets=tuple(it for it in subnets if it not in public),
        public_subnets=public,
        input_ports=input_ports,
        input_ports_while_down=while_down,
        vpn_input_ports=vpn_input_ports,
        health_server=health_server,
        implementation=_value(given.wireguard_implementation, Implementation.AUTO),
        firewall=_value(given.firewall_backend, Backend.AUTO),
        health_probe=probe or HealthProbe(),
        endpoint_resolver=_value(given.wireguard_endpoint_resolver, None),
        up_command=_value(given.vpn_up_command, ()),
        down_command=_value(given.vpn_down_command, ()),
        list_period=_value(given.updater_period, None),
        name_server=name_server,
        http_proxy=http_proxy,
        socks_proxy=socks_proxy,
        port_client=port_client,
        control_server=control_server,
        forwarding=leased,
    )


def _value(given: Sourced[T] | None, default: T) -> T:
    return given.value if given else default


def _where(given: Sourced[object] | None) -> str:
    return given.origin.where if given else ""
