"""What the promise tests have in common: probes in both families, floods, opening on purpose.

Times are seconds of the monotonic clock, as the frames of a capture have them.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tests.lab.frames import TCP, Frame
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.lab.workload import Probe, Traffic, Workload

HOST4, HOST6 = INTERNET[0]
FIREWALL_MARK = 0xCA6C

ORDINARY = ("tcp", "udp", "ping")
"""The probes of an honest application."""

FLOOD = tuple(
    f"{kind}{family}"
    for kind in ("udp", "tcp", "device", "mark", "raw", "packet")
    for family in (4, 6)
)

AT_ONCE = 0.5 * PATIENCE
"""Seconds within which a refusal counts as immediate."""


def ordinary(
    workload: Workload, marker: str = "", hosts: Sequence[str] = (HOST4, HOST6)
) -> dict[str, Probe]:
    """Send what an honest application sends, to hosts of both families; `udp 4`, ... by name."""
    return {
        f"{name} {6 if ':' in host else 4}": workload.probe(
            name, host=host, **({"marker": marker} if marker and name != "tcp" else {})
        )
        for host in hosts
        for name in ORDINARY
    }


def not_answered(answers: dict[str, Probe]) -> dict[str, Probe]:
    """Return the probes without an answer."""
    return {k: p for k, p in answers.items() if p.result not in {"answered", "connected"}}


def not_refused_at_once(answers: dict[str, Probe]) -> dict[str, Probe]:
    """Return the probes that the kernel did not refuse, or not at once."""
    return {
        name: probe
        for name, probe in answers.items()
        if not probe.failed_fast or probe.seconds > AT_ONCE
    }


def not_by_the_exit(lab: Lab, answers: dict[str, Probe]) -> dict[str, Probe]:
    """Return the probes of `ordinary` that did not reach the internet by the server's exit."""
    wrong = not_answered(answers)
    for name, probe in answers.items():
        reported = lab.server.exit.ipv6 if name.endswith("6") else lab.server.exit.ipv4
        if not name.startswith("ping") and probe.seen != reported:
            wrong[name] = probe
    return wrong


# -- floods -----------------------------------------------------------------------------------


def flooded(lab: Lab, *kinds: str, rate: int = 100) -> Traffic:
    """Start a flood of `kinds` (all of them by default) and wait until each is seen outside."""
    since = time.monotonic()
    flood = lab.workload.flood(*(kinds or FLOOD), rate=rate)
    wait_for_flood(lab, *kinds, since=since)
    return flood


def wait_for_flood(lab: Lab, *kinds: str, since: float) -> None:
    """Wait until each of `kinds` (all of them by default) has got out: the positive control."""
    for kind in kinds or FLOOD:
        lab.capture.wait_for(lambda frame, kind=kind: is_flood(frame, kind), since=since)


def is_flood(frame: Frame, kind: str) -> bool:
    """Return whether the frame is of this kind of flood; a connection attempt has no payload."""
    target = HOST6 if kind.endswith("6") else HOST4
    if kind.startswith("tcp"):
        return (frame.protocol, frame.destination) == (TCP, target)
    return f" {kind} ".encode() in frame.raw


# -- moments ----------------------------------------------------------------------------------


def moment_of(gateway: Gateway, event: str, timeout: float = 10) -> float:
    """Wait until the gateway's log has `event`, and return when that was written."""

    def found() -> float | None:
        events = gateway.events(event=event)
        if not events:
            return None
        stamp = datetime.fromisoformat(events[0]["timestamp"]).timestamp()
        return stamp - time.time() + time.monotonic()

    return eventually(found, timeout=timeout, what=f"the event {event!r}", interval=0.01)


def locked(gateway: Gateway) -> float:
    """Wait until the gateway has locked, by its own word, and return when that was."""
    return moment_of(gateway, "locked")


# -- other programs ----------------------------------------------------------------------------


OPEN_FIREWALL = """
for tool in iptables-legacy ip6tables-legacy; do
    for chain in INPUT FORWARD OUTPUT; do $tool -w 2 -P $chain ACCEPT; done
    for table in filter mangle; do $tool -w 2 -t $table -F; done
done
nft flush ruleset
"""

OPEN_ROUTES = """
for family in -4 -6; do
    for priority in $(ip $family rule | sed -n 's/^\\(1[0-9][0-9]\\):.*/\\1/p'); do
        ip $family rule del priority $priority
    done
done
"""


def open_firewall(lab: Lab) -> None:
    """Take every firewall rule away and accept everything: what no gateway ever does."""
    lab.operator.run("sh", "-c", OPEN_FIREWALL, check=False)


def open_routes(lab: Lab) -> None:
    """Take the gateway's policy rules away, so that the main table decides."""
    lab.operator.run("sh", "-c", OPEN_ROUTES)


def open_everything(lab: Lab) -> None:
    """Open the namespace on purpose: packets then leave through the uplink, and are seen."""
    open_firewall(lab)
    open_routes(lab)


# -- what is there ----------------------------------------------------------------------------


def commands(lab: Lab) -> list[str]:
    """Return the names of the processes in the gateway's namespace."""
    names = []
    for pid in lab.gateway_namespace.pids():
        try:
            names.append(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            continue
    return names


def links(lab: Lab) -> list[str]:
    """Return the names of the namespace's links."""
    return sorted(
        line.split(": ")[1].partition("@")[0]
        for line in lab.operator.run("ip", "-o", "link").splitlines()
    )


def rules_and_routes(lab: Lab) -> dict[str, list[str]]:
    """Return everything that a gateway puts into the kernel, as the kernel's own tools show it."""
    shown = {
        "links": ["ip", "-o", "-br", "addr"],
        "rules4": ["ip", "-4", "rule"],
        "rules6": ["ip", "-6", "rule"],
        "routes4": ["ip", "-4", "route", "show", "table", "all"],
        "routes6": ["ip", "-6", "route", "show", "table", "all"],
        "iptables": ["iptables-legacy-save"],
        "ip6tables": ["ip6tables-legacy-save"],
        "nftables": ["nft", "-s", "-nn", "list", "ruleset"],
    }
    return {what: lab.operator.run(*argv, check=False).splitlines() for what, argv in shown.items()}
