"""Compares a compose service with its configuration: capabilities and published ports."""

from collections.abc import Iterator
from typing import Any

from gateway.commands.check.compose import Service
from gateway.model import Config, PortRange, Protocol
from gateway.settings import values
from gateway.settings.findings import Findings
from gateway.settings.values import safe_text


def compare(service: Service, config: Config, where: str, findings: Findings) -> None:
    """Report where the service and its configuration do not fit together."""
    if service.privileged:
        findings.warn(
            where,
            "privileged gives it full access to the host; remove it: cap_add NET_ADMIN is enough",
        )
    elif not {"NET_ADMIN", "ALL"} & service.capabilities:
        findings.warn(where, "cap_add lacks NET_ADMIN, without which nothing works; add it")
    anchor = service.anchor
    if anchor and anchor.holds and not {"NET_ADMIN", "ALL"} & anchor.capabilities:
        name = safe_text(anchor.name)
        findings.warn(
            where, f"cap_add of {name} lacks NET_ADMIN, without which `hold` cannot close; add it"
        )
    ours = {tunnel.listen_port for tunnel in config.tunnels}
    listening = {PortRange(Protocol.UDP, port, port) for port in ours}
    for entry in (*service.ports, *(anchor.ports if anchor else ())):
        published = _published(entry)
        if published in listening:
            findings.info(
                where,
                f"port {published} is published for WireGuard, which a client does not need; "
                "remove it from ports",
            )
        elif published:
            for closed in _without(published, config.input_ports):
                said = (
                    f"ports {closed} are published but stay closed until FIREWALL_INPUT_PORTS "
                    "lists them"
                    if closed.first < closed.last
                    else f"port {closed} is published but stays closed until FIREWALL_INPUT_PORTS "
                    "lists it"
                )
                findings.warn(where, said)


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


def _without(wanted: PortRange, listed: tuple[PortRange, ...]) -> Iterator[PortRange]:
    """Yield the parts of `wanted` that are not in `listed`, which is in order and disjoint."""
    begin = wanted.first
    for ports in sorted(listed):
        if ports.protocol is wanted.protocol and ports.last >= begin:
            if ports.first > wanted.last:
                break
            if ports.first > begin:
                yield PortRange(wanted.protocol, begin, ports.first - 1)
            begin = ports.last + 1
    if begin <= wanted.last:
        yield PortRange(wanted.protocol, begin, wanted.last)
