"""Which ports of a service to list in FIREWALL_INPUT_PORTS, and which to publish no longer.

Listing a port opens it, so only ports at which a workload may listen are advised. A torrent's own
port is to be removed: its peers come through the tunnel, and a listed one would answer at home. So
are the ports of servers that other images run and this one does not, unless a variable is set.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gateway.commands.check.advice import Advice
from gateway.commands.check.reached import reached
from gateway.commands.check.service import Service
from gateway.model import PortRange, Protocol
from gateway.model.frozen import frozen
from gateway.settings import values
from gateway.settings.compat import KNOWN, OFF
from gateway.settings.findings import Findings, joined

INPUT_PORTS: Final = "FIREWALL_INPUT_PORTS"

_SERVERS: Final = {
    8888: ("an HTTP proxy", "HTTPPROXY", "on"),
    8388: ("a Shadowsocks proxy", "SHADOWSOCKS", "on"),
    8000: ("a control server", "HTTP_CONTROL_SERVER_ADDRESS", ":8000"),
}
"""Ports at which gluetun listens, what does so, and the variable and its value that have it here.

A variable that this image does not know has nothing.
"""

_TORRENT: Final = (*range(6881, 6892), 51413)
"""The ports at which torrent clients listen when nothing else is set."""

_OWN_PORT: Final = re.compile(r"(?:TORRENTING_PORT|PEERPORT|BT_PORT|TORRENT_PORT)=(\d{1,5})")
"""How images of torrent clients are given their port."""


@frozen
class Known:
    """What is known of the configuration.

    `listed` and `forwarded` are FIREWALL_INPUT_PORTS and FIREWALL_VPN_INPUT_PORTS; `listening` are
    the ports of the tunnels themselves.
    """

    listed: Sequence[PortRange]
    forwarded: Sequence[PortRange]
    listening: Sequence[int] = ()


def compare_ports(
    service: Service, known: Known, where: str, findings: Findings, advice: Advice
) -> None:
    """Report published and reached ports that are not listed; advise what to list or remove."""
    closed: list[PortRange] = []
    needless: dict[str, list[PortRange]] = {}
    for entry in (*service.ports, *(service.anchor.ports if service.anchor else ())):
        ports = _published(entry)
        if not ports:
            continue
        reason = _why_not(ports, service, known)
        if reason:
            needless.setdefault(reason, []).append(ports)
            advice.ports.append(as_written(entry))
        else:
            closed += _without(ports, known.listed)
    for reason, those in needless.items():
        said = f"{_said(those)} published, but {reason}; remove from ports"
        findings.warn(where, said)
    _report_closed(closed, where, findings)
    for ports, reason in reached(service):
        ways = [one for one in _without(ports, [*known.listed, *closed]) if one.first]
        if ways and not _why_not(ports, service, known):
            findings.warn(
                where,
                f"{_said([ports])} reached over the Docker network ({reason}), but closed until "
                f"{INPUT_PORTS} lists it",
            )
            closed += ways
    if closed:
        wanted = dict.fromkeys((*known.listed, *closed))
        advice.variables[INPUT_PORTS] = ",".join(map(str, wanted))


def _report_closed(closed: Sequence[PortRange], where: str, findings: Findings) -> None:
    """Report published ports that stay closed."""
    if closed:
        one = len(set(closed)) == 1 and closed[0].first == closed[0].last
        stay, them = ("stays", "it") if one else ("stay", "them")
        findings.warn(
            where,
            f"{_said(closed)} published but {stay} closed until {INPUT_PORTS} lists {them}",
        )


def _said(ports: Sequence[PortRange]) -> str:
    distinct = [*dict.fromkeys(ports)]
    one = len(distinct) == 1 and distinct[0].first == distinct[0].last
    return f"port {distinct[0]} is" if one else f"ports {joined(distinct)} are"


def _why_not(ports: PortRange, service: Service, known: Known) -> str | None:
    """Return why a port is to be published no longer, None if it may be of use."""
    first, last = ports.first, ports.last
    if any(ports == PortRange(Protocol.UDP, port, port) for port in known.listening):
        return "only a WireGuard server needs that, and this is a client"
    if _is_among(ports, known.listed):
        return None
    if _is_among(ports, known.forwarded):
        return "clients come through the tunnel (FIREWALL_VPN_INPUT_PORTS)"
    joining = [one for one in service.neighbours if one.joins]
    texts = [text for one in joining for text in one.texts]
    own = {int(port) for text in texts for port in _OWN_PORT.findall(text)}
    if all(port in own or port in _TORRENT for port in range(first, last + 1)):
        return (
            "a torrent's peers come through the tunnel, if your provider forwards a port and "
            "FIREWALL_VPN_INPUT_PORTS lists it"
        )
    if first == last and first in _SERVERS:
        mention = re.compile(rf"(?<!\d){first}(?!\d)")
        if not any(mention.search(text) for text in texts):
            return _why_silent(service, *_SERVERS[first])
    return None


def _why_silent(service: Service, what: str, variable: str, value: str) -> str | None:
    """Return why `what` does not listen, None if the `variable` has it do so."""
    if variable not in KNOWN:
        return f"nothing listens there: this image does not have {what}"
    is_on = service.variables.get(variable, "").strip().lower() not in OFF
    return None if is_on else f"nothing listens there without {variable}={value}"


def _is_among(ports: PortRange, known: Sequence[PortRange]) -> bool:
    """Whether one entry of a list has all of the ports."""
    return any(
        one.protocol is ports.protocol and one.first <= ports.first and ports.last <= one.last
        for one in known
    )


def as_written(entry: Any) -> str:
    """Return an entry of `ports` as a text, of the long form what it comes to."""
    if isinstance(entry, dict):
        return f"{entry.get('published', '')}:{entry.get('target', '')}"
    return str(entry)


def _published(entry: Any) -> PortRange | None:
    """Return the container's ports in an entry of `ports`, None where it cannot be read."""
    if isinstance(entry, dict):
        text = f"{entry.get('target', '')}/{entry.get('protocol', 'tcp')}"
    else:
        text = str(entry).rpartition(":")[2]
    try:
        found = values.ports(text)
    except ValueError:
        return None
    # Compose publishes TCP by default.
    return found[0] if found else None


def _without(wanted: PortRange, listed: Sequence[PortRange]) -> Iterator[PortRange]:
    """Yield the parts of `wanted` that are not in `listed`."""
    begin = wanted.first
    for ports in sorted(listed):
        if ports.protocol is wanted.protocol and ports.last >= begin:
            if ports.first > wanted.last:
                break
            if ports.first > begin:
                yield PortRange(wanted.protocol, begin, ports.first - 1)
            begin = max(begin, ports.last + 1)
    if begin <= wanted.last:
        yield PortRange(wanted.protocol, begin, wanted.last)
