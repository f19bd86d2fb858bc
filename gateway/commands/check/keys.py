"""The keys of a service that decide how the gateway starts, what it may do, and how it is judged.

A key that would leave a network unprotected, or close one that is not the gateway's, is a problem.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from gateway.commands.check.advice import Advice
from gateway.commands.check.mounting import as_mapping
from gateway.commands.check.service import Service
from gateway.settings.findings import Findings, joined
from gateway.settings.values import safe_quote, safe_text

_COMMANDS: Final[Sequence[Sequence[str]]] = (*((), ("run",), ("hold",), ("gateway", "hold")),)
_ROOT: Final = frozenset({"", "0", "root"})
_ADMIN: Final = frozenset({"NET_ADMIN", "ALL"})
_RAW: Final = frozenset({"NET_RAW", "ALL"})

_MODULES: Final = "SYS_MODULE"

_OWN_CHECK: Final = re.compile(r"portcullis/healthcheck|/healthz|gateway status")
"""Health checks that ask the gateway."""

_MISSING: Final = frozenset(
    (
        *("curl", "wget", "nc", "ncat", "nslookup", "dig", "host", "drill", "bash", "ip", "wg"),
        *("ss", "netstat", "traceroute", "jq", "cat", "grep", "sed", "awk", "timeout", "ls"),
    )
)
"""Programs of health checks that this image does not have."""

_IGNORED: Final = {
    "/custom-cont-init.d": "scripts there are never run: the kill switch is always on, and "
    "VPN_UP_COMMAND runs a program when the tunnel comes up",
    "/custom-services.d": "services there are never run",
    "/iptables": "rules there are never used; FIREWALL_OUTBOUND_SUBNETS, FIREWALL_INPUT_PORTS and "
    "FIREWALL_VPN_INPUT_PORTS say what may pass",
}
"""Where other images look for files of which this one has no use."""

_WITH_PROGRAM: Final = re.compile(
    r"binhex/arch-(?!privoxy)([a-z]+?)vpn|haugene/(transmission)-openvpn|(qbittorrent|deluge|transmission)-?vpn"
)
"""Images that are a tunnel and the program that uses it in one."""

_SOCKETS: Final = PurePosixPath("/run/wireguard")


def check_keys(service: Service, where: str, findings: Findings, advice: Advice) -> None:
    """Report the keys of a service that break a gateway, or have no effect on this one."""
    _image(service, where, findings)
    _network(service, where, findings, advice)
    _start(service, where, findings, advice)
    _capabilities(service, where, findings, advice)
    _health(service, where, findings, advice)
    _files(service, where, findings)


def _image(service: Service, where: str, findings: Findings) -> None:
    image = str(service.keys.get("image") or "")
    found = _WITH_PROGRAM.search(image)
    if found:
        program = next(filter(None, found.groups()))
        findings.warn(
            where,
            f"image {safe_quote(image)} also runs {program}, which this image does not have; run "
            "it as a service of its own with network_mode: service:gateway, and move its volumes "
            "and variables there",
        )


def _network(service: Service, where: str, findings: Findings, advice: Advice) -> None:
    mode = str(service.owner.keys.get("network_mode") or "")
    kind, _, other = mode.partition(":")
    if mode == "host":
        findings.problem(
            where,
            "network_mode: host would close the network of the whole machine; remove it, and "
            "publish the workloads' ports with ports",
        )
        advice.keys.append("network_mode")
    elif mode == "none":
        findings.problem(where, "network_mode: none leaves no way to the server; remove it")
        advice.keys.append("network_mode")
    elif kind == "container":
        findings.warn(
            where,
            f"network_mode: container:{safe_text(other)}: the network belongs to a container that "
            "is not checked; name its service as `service:NAME`, with `command: hold` in it, so "
            "that it is closed while the gateway restarts",
        )


def _start(service: Service, where: str, findings: Findings, advice: Advice) -> None:
    entrypoint, user = service.set_by("entrypoint"), str(service.keys.get("user") or "")
    command = tuple(service.set_by("command"))
    if entrypoint:
        findings.problem(
            where,
            f"entrypoint {safe_quote(' '.join(entrypoint))} replaces the gateway by another "
            "program, so nothing would be closed; remove it",
        )
        advice.keys.append("entrypoint")
    elif command not in _COMMANDS:
        findings.problem(
            where,
            f"command {safe_quote(' '.join(command))} is not one that the gateway has to protect "
            "a network, which are run and hold; remove it",
        )
        advice.keys.append("command")
    if user.partition(":")[0] not in _ROOT:
        findings.problem(
            where,
            f"user {safe_quote(user)}: Docker gives the capability NET_ADMIN to root alone; remove "
            "it",
        )
        advice.keys.append("user")


def _capabilities(service: Service, where: str, findings: Findings, advice: Advice) -> None:
    if service.privileged:
        findings.warn(
            where,
            "privileged gives it full access to the host; remove it: cap_add NET_ADMIN is enough",
        )
    elif not _ADMIN & service.capabilities:
        findings.warn(where, "cap_add lacks NET_ADMIN, without which nothing works; add it")
        advice.capabilities.append("NET_ADMIN")
    if _MODULES in service.capabilities:
        findings.warn(
            where,
            f"cap_add {_MODULES} lets it load kernel modules, which it never does; remove it",
        )
        advice.needless.append(_MODULES)
    anchor = service.anchor
    if anchor and anchor.holds and not _ADMIN & anchor.capabilities:
        name = safe_text(anchor.name)
        findings.warn(
            where, f"cap_add of {name} lacks NET_ADMIN, without which `hold` cannot close; add it"
        )
    dropped = {str(one).upper().removeprefix("CAP_") for one in service.keys.get("cap_drop", ())}
    if dropped & _RAW and not service.capabilities & _RAW and not service.privileged:
        findings.warn(
            where,
            f"cap_drop {joined(sorted(dropped & _RAW))} takes NET_RAW, which the kernel's legacy "
            "iptables needs, and stopping AF_XDP sockets; add it to cap_add",
        )


def _health(service: Service, where: str, findings: Findings, advice: Advice) -> None:
    check = as_mapping(service.keys.get("healthcheck"))
    test = check.get("test")
    words = [str(one) for one in test] if isinstance(test, list) else str(test or "").split()
    if str(check.get("disable", "")).lower() == "true" or words[:1] == ["NONE"]:
        if not service.holds:
            findings.warn(
                where,
                "healthcheck is switched off, so workloads that wait for service_healthy never "
                "start; remove it, because the image has its own",
            )
            advice.keys.append("healthcheck")
    elif words and not _OWN_CHECK.search(" ".join(words)):
        missing = _missing(words)
        findings.warn(
            where,
            "healthcheck replaces the image's own, which follows the tunnel"
            + (f", and this image lacks {joined(missing)}" if missing else "")
            + "; remove it",
        )
        advice.keys.append("healthcheck")


def _missing(words: Sequence[str]) -> list[str]:
    """Return the programs in a health check that this image does not have."""
    named = re.findall(r"[\w./-]+", " ".join(words))
    programs = [PurePosixPath(word).name for word in named]
    return [one for one in dict.fromkeys(programs) if one in _MISSING or "gluetun" in one]


def _files(service: Service, where: str, findings: Findings) -> None:
    for place, reason in _IGNORED.items():
        inside = [path for path in service.mounts if path.is_relative_to(place)]
        if inside:
            findings.warn(where, f"mounts {safe_text(str(inside[0]))}: {reason}")
    read_only = str(service.keys.get("read_only", "")).lower() == "true"
    if read_only and not _is_writable(service.keys.get("tmpfs", ()), service):
        findings.warn(
            where,
            f"read_only without tmpfs: {_SOCKETS}, which userspace WireGuard needs; add it",
        )


def _is_writable(tmpfs: Sequence[Any], service: Service) -> bool:
    places = [PurePosixPath(str(one).partition(":")[0]) for one in tmpfs]
    return any(_SOCKETS.is_relative_to(place) for place in (*places, *service.mounts))
