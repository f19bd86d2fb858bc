"""Compares a compose service with its configuration, also with one that is wrong."""

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.commands.check.advice import Advice
from gateway.commands.check.keys import check_keys
from gateway.commands.check.ports import INPUT_PORTS, Known, compare_ports
from gateway.commands.check.resolver import check_resolver
from gateway.commands.check.service import Service
from gateway.model import Config, PortRange
from gateway.settings import moving, values
from gateway.settings.compat import KILL_SWITCH, OFF, elsewhere, misspelt, replacement
from gateway.settings.findings import Findings
from gateway.settings.tunnels import DEFAULT_PORT

_PROTOCOL: Final = "VPN_TYPE"


def compare(service: Service, config: Config | None, where: str, findings: Findings) -> Advice:
    """Report where the service and its configuration do not fit together; return what to change.

    `config` is None if the configuration is wrong: then the variables are read as far as possible.
    """
    advice = Advice(service)
    check_keys(service, where, findings, advice)
    check_resolver(service, where, findings, advice)
    if not config:
        _set_up(service, advice)
    _names(service, advice)
    if service.keys.get("network_mode") != "host" or "network_mode" in advice.keys:
        compare_ports(service, _known(service, config, advice), where, findings, advice)
    _once(advice)
    return advice


def _set_up(service: Service, advice: Advice) -> None:
    """Advise what the variables of another image come to."""
    if other := moving.recognized(service.variables):
        advice.renamed |= other.renamed
        advice.variables |= other.added


def _names(service: Service, advice: Advice) -> None:
    """Advise about variables that are problems by their names, or by what they mean elsewhere."""
    for name, value in service.variables.items():
        text = values.unquoted(value.strip()).lower()
        if name == _PROTOCOL and text == "openvpn":
            advice.variables[name] = "wireguard"
        elif name in KILL_SWITCH and text in OFF:
            advice.unset.append(name)
        elif text and name not in (*KILL_SWITCH, *advice.renamed):
            meant = replacement(name) if elsewhere(name) else misspelt(name)
            if meant and meant not in (*service.variables, *advice.renamed.values()):
                advice.renamed[name] = meant


def _once(advice: Advice) -> None:
    """Advise to remove what would get the name of a variable that is to be set anyway."""
    for name in [name for name, meant in advice.renamed.items() if meant in advice.variables]:
        del advice.renamed[name]  # what is set has its value, too
        advice.unset.append(name)


def _known(service: Service, config: Config | None, advice: Advice) -> Known:
    """Return the ports that are listed, those under a name that is to be changed among them."""
    renamed = {
        meant: service.variables[name]
        for name, meant in advice.renamed.items()
        if meant not in service.variables
    }
    if config:
        ports = [tunnel.listen_port for tunnel in config.tunnels]
        more = _listed(renamed, INPUT_PORTS)
        return Known((*config.input_ports, *more), config.vpn_input_ports, ports)
    variables = {**service.variables, **renamed}
    return Known(
        _listed(variables, INPUT_PORTS),
        _listed(variables, "FIREWALL_VPN_INPUT_PORTS"),
        [DEFAULT_PORT],
    )


def _listed(variables: Mapping[str, str], name: str) -> Sequence[PortRange]:
    try:
        return values.ports(values.unquoted(variables.get(name, "").strip()))
    except ValueError:
        return ()
