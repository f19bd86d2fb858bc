"""Putting the configuration together: everything is read, checked and told at once.

sources -> schema (pydantic-settings) -> tunnels, with quickfiles -> checks -> Loaded
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from gateway.errors import Notice
from gateway.model import Backend, Config, HealthProbe, HostPort, Implementation, Tunnel
from gateway.settings import checks, compat, fields, quickfiles, tunnels
from gateway.settings.addresses import listen_address
from gateway.settings.findings import Findings
from gateway.settings.picking import ENDPOINT
from gateway.settings.schema import FIELDS
from gateway.settings.sources import (
    FILE_VARIABLES,
    PLAIN_ONLY,
    SECRETFILE,
    Variables,
    read_variables,
)
from gateway.settings.values import unquoted

T = TypeVar("T")

DEFAULT_HEALTH_SERVER: Final = HostPort("127.0.0.1", 9999)


@dataclass(frozen=True)
class LogSettings:
    """How to log: the least `level` (debug, info, warning, error), `format` auto, json, console."""

    level: str = "info"
    format: str = "auto"


@dataclass(frozen=True)
class Loaded:
    """The configuration, what to tell about it, and where each value came from.

    `origins` has an entry for each variable in capitals, and for `LISTEN_PORT` and `FWMARK`: a path
    with its line, `environment`, or `default`. Of several peers each has entries of its own, with
    its number behind the name. `tunnel_origins` has the same for each of `config.tunnels`, the
    first of which is `origins`.
    """

    config: Config
    notices: tuple[Notice, ...]
    tunnel_origins: tuple[Mapping[str, str], ...]
    log: LogSettings

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value came from, with the tunnel that is tried first."""
        return self.tunnel_origins[0]


def environment() -> Mapping[str, str]:
    """Return a copy of the process's environment."""
    return dict(os.environ)


def log_settings(environ: Mapping[str, str]) -> LogSettings:
    """Return how to log; what is wrong about it counts as not set, and `load` tells it."""
    return LogSettings(
        _plain(environ, "LOG_LEVEL", fields.log_level, "info"),
        _plain(environ, "LOG_FORMAT", fields.log_format, "auto"),
    )


def health_address(environ: Mapping[str, str]) -> HostPort:
    """Return where the health server listens; what is wrong about it counts as not set."""
    return _plain(environ, "HEALTH_SERVER_ADDRESS", listen_address, DEFAULT_HEALTH_SERVER)


def _plain(environ: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    try:
        return parse(unquoted(environ.get(name, "").strip()))
    except ValueError:
        return default


def load(environ: Mapping[str, str], root: Path = Path("/")) -> Loaded:
    """Read the configuration from `environ` and from the files under `root`.

    Raises ConfigError with every problem there is; no message holds a secret.
    """
    findings = Findings()
    compat.check_names(environ, _known_names(), findings)
    variables = read_variables(environ, root, findings)
    drafts = _drafts(variables, root, findings)
    config = _config(variables, drafts, findings)
    if findings.problems or config is None:
        raise findings.error()
    origins = tuple(_origins(variables, draft.origins) for draft in drafts)
    return Loaded(config, tuple(findings.notices), origins, log_settings(environ))


def _known_names() -> frozenset[str]:
    plain = {field.upper() for field in PLAIN_ONLY}
    return frozenset(plain | set(FILE_VARIABLES) | {name + SECRETFILE for name in FILE_VARIABLES})


def _drafts(variables: Variables, root: Path, findings: Findings) -> tuple[tunnels.Draft, ...]:
    """Return the candidates that variables and files make; none when a file cannot be read."""
    named = variables.values.wireguard_conf_secretfile
    paths = quickfiles.find(root, named, findings)
    where = "WIREGUARD_CONF_SECRETFILE" if named in paths else ""
    read = [quickfiles.read(root, path, findings, where) for path in paths]
    if None in read or "wireguard_conf_secretfile" in variables.unreadable:
        return ()
    return tunnels.build(variables, [file for file in read if file], findings)


def _config(
    variables: Variables, drafts: tuple[tunnels.Draft, ...], findings: Findings
) -> Config | None:
    """Check everything against everything, and put it together if there is a tunnel at all."""
    settings = variables.values
    subnets = checks.outbound_subnets(variables, findings)
    input_ports = checks.ports("firewall_input_ports", variables, findings)
    vpn_input_ports = checks.ports("firewall_vpn_input_ports", variables, findings)
    for draft in drafts:
        where = variables.where("firewall_outbound_subnets")
        checks.lan_against_tunnel(subnets, draft.tunnel, where, findings)
        origin = draft.origins.get("dns_address", "")
        checks.resolvers(
            draft.dns,
            subnets,
            draft.tunnel,
            findings,
            where=origin if draft.dns_from_file else "DNS_ADDRESS",
            from_file=draft.dns_from_file,
        )
    health_server = settings.health_server_address or DEFAULT_HEALTH_SERVER
    checks.health_server(health_server, input_ports, findings)
    checks.probe_outside(settings.health_probe, subnets, findings)
    for draft in drafts:
        checks.probe_inside(settings.health_probe, draft.tunnel, draft.dns, subnets, findings)
        listed = variables.where("firewall_input_ports")
        checks.listen_port(draft.tunnel, input_ports, listed, findings)
    if not drafts:
        return None
    if not drafts[0].dns and "dns_address" not in variables.unreadable:
        findings.warn(
            "DNS_ADDRESS",
            "is not set, so that no name resolves; write your provider's resolver, often shown as "
            "DNS in its WireGuard file. None is chosen for you: it would see every name",
        )
    return Config(
        tunnels=_tunnels(drafts),
        dns=drafts[0].dns,
        outbound_subnets=subnets,
        input_ports=input_ports,
        vpn_input_ports=vpn_input_ports,
        health_server=health_server,
        implementation=settings.wireguard_implementation or Implementation.AUTO,
        firewall=settings.firewall_backend or Backend.AUTO,
        health_probe=settings.health_probe or HealthProbe(),
        endpoint_resolver=settings.wireguard_endpoint_resolver,
        up_command=settings.vpn_up_command or (),
        down_command=settings.vpn_down_command or (),
    )


def _tunnels(drafts: tuple[tunnels.Draft, ...]) -> tuple[Tunnel, ...]:
    """Return the candidates, each with its own resolvers where they are not the same for all."""
    if all(draft.dns == drafts[0].dns for draft in drafts):
        return tuple(draft.tunnel for draft in drafts)
    return tuple(replace(draft.tunnel, dns=draft.dns) for draft in drafts)


def _origins(variables: Variables, origins: Mapping[str, str]) -> dict[str, str]:
    """Return where each value came from, by variable, given what was picked for one tunnel."""
    found = {field.upper(): variables.origin(field) for field in FIELDS}
    for name, origin in origins.items():
        if name == ENDPOINT:
            found["WIREGUARD_ENDPOINT_IP"] = found["WIREGUARD_ENDPOINT_PORT"] = origin
        else:
            found[name.upper()] = origin
    return found
