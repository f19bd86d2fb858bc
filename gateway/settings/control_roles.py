"""The roles of the control API: those of the variables, and of the file that gluetun reads too.

What the file means is documented by gluetun ("Control server", authentication). Here a role without
a credential can only read, and routes that are not served here are left out.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gateway.model import HostPort, PortRange, Protocol
from gateway.model.control import Auth, Control, Role, every_route, is_reading
from gateway.settings import files
from gateway.settings.control import SHORTEST_KEY, default_role_of, role_of
from gateway.settings.findings import Findings
from gateway.settings.schema import Settings
from gateway.settings.values import safe_quote, safe_text

DEFAULT_FILE: Final = PurePosixPath("/gluetun/auth/config.toml")
MOST_ROLES: Final = 64
MOST_NOTICES: Final = 8
"""How many routes that are left out are named."""

ADDRESS: Final = "HTTP_CONTROL_SERVER_ADDRESS"
KEY: Final = "HTTP_CONTROL_SERVER_API_KEY"
FILE: Final = "HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH"
DEFAULT_ROLE: Final = "HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE"

ELSEWHERE: Final = frozenset(
    {
        *("GET /openvpn/actions/restart", "GET /openvpn/portforwarded", "GET /openvpn/settings"),
        *("GET /unbound/actions/restart", "GET /updater/restart", "PUT /v1/vpn/settings"),
        *("GET /v1/openvpn/settings", "PUT /v1/dns/status", "GET /v1/updater/status"),
        *("PUT /v1/updater/status", "PUT /v1/portforward"),
    }
)
"""Routes that gluetun has, and the control API here has not."""

SELECTION: Final = {
    "server_countries": "countries",
    "server_regions": "regions",
    "server_cities": "cities",
    "server_names": "names",
    "server_hostnames": "hostnames",
    "server_categories": "categories",
    "isp": "isps",
}
"""What chooses a server, by gluetun's names."""


def control(given: Settings, root: Path, findings: Findings) -> Control | None:
    """Return who may use the control API, None where it is off."""
    if given.http_control_server_address is None:
        _report_unused(given, findings)
        return None
    roles = (*_of_key(given), *_of_file(given, root, findings))
    roles += tuple(_of_default_role(given, roles))
    _report(given.http_control_server_address.value, roles, findings)
    provider = given.vpn_service_provider
    selection = tuple(
        (theirs, tuple(map(safe_text, chosen.value)))
        for field, theirs in SELECTION.items()
        if (chosen := getattr(given, field))
    )
    return Control(roles, provider.value if provider else "", selection)


def _report_unused(given: Settings, findings: Findings) -> None:
    for field in (KEY, FILE, DEFAULT_ROLE):
        if unused := getattr(given, field.lower()):
            findings.info(unused.origin.where, f"has no effect without {ADDRESS}")


def _of_key(given: Settings) -> Iterator[Role]:
    if key := given.http_control_server_api_key:
        yield Role(KEY, Auth.KEY, every_route(), key.value)


def _of_default_role(given: Settings, others: Sequence[Role]) -> Iterator[Role]:
    """Yield the role for routes that no other role of the file has."""
    text = given.http_control_server_auth_default_role
    role = default_role_of(text.value.reveal()) if text else None
    if role is None:
        return
    taken = {route for it in others if it.name != KEY for route in it.routes}
    left = every_route() - taken
    if role.auth is Auth.NONE:
        left = frozenset(filter(is_reading, left))
    yield replace(role, routes=left)


def _of_file(given: Settings, root: Path, findings: Findings) -> Iterator[Role]:
    chosen = given.http_control_server_auth_config_filepath
    path = chosen.value if chosen else DEFAULT_FILE
    if not chosen and not files.exists(root, path):
        return
    where = chosen.origin.where if chosen else str(path)
    text = files.read(root, path, where, findings, secret=True)
    if text is None:
        return
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as err:  # a number may be too long to be one
        at = re.search(r"\(at line (\d+)", str(err))  # the rest may have a part of a key
        line = f" in line {at[1]}" if at else ""
        findings.problem(
            where, f"{safe_text(str(path))} is not TOML{line}; see docs/control-api.md"
        )
        return
    entries = content.get("roles", [])
    if set(content) - {"roles"} or not isinstance(entries, list) or len(entries) > MOST_ROLES:
        findings.problem(
            where, f"{safe_text(str(path))} has to be a list of [[roles]], {MOST_ROLES} at most"
        )
        return
    for number, entry in enumerate(entries, 1):
        if role := _role(entry, f"role {number}", where, findings):
            yield role


def _role(entry: Any, which: str, where: str, findings: Findings) -> Role | None:
    """Return one role of the file; None, and a problem, if it is wrong."""
    try:
        role, routes = _written(entry)
    except ValueError as err:
        findings.problem(where, f"{which}: {err}")
        return None
    served = frozenset(routes) & every_route()
    for it in sorted(set(routes) - served)[:MOST_NOTICES]:
        findings.info(where, f"{which}: {it} is left out, the control API here does not have it")
    if role.auth is Auth.NONE:
        for it in sorted(served):
            if not is_reading(it):
                findings.warn(
                    where,
                    f"{which}: {it} is left out, because nothing can be changed without a "
                    'credential; write auth = "apikey" and a key',
                )
        served = frozenset(filter(is_reading, served))
    return replace(role, routes=served)


def _written(entry: Any) -> tuple[Role, list[str]]:
    """Return a role without its routes, and those as they are written. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError("has to be a table, below a line [[roles]]")  # noqa: TRY004 - as others
    routes = entry.get("routes", [])
    if not isinstance(routes, list) or not all(isinstance(it, str) for it in routes):
        raise ValueError('routes has to be a list such as ["GET /v1/portforward"]')
    _refuse_unknown(routes)
    return role_of(entry), routes


def _refuse_unknown(routes: Sequence[str]) -> None:
    known = every_route() | ELSEWHERE
    for it in routes:
        if it not in known:
            near = get_close_matches(it, sorted(every_route()), n=1)
            meant = f"did you mean {near[0]!r}?" if near else "docs/control-api.md lists all"
            raise ValueError(f"the route {safe_quote(it)} does not exist; {meant}")


def _report(address: HostPort, roles: Sequence[Role], findings: Findings) -> None:
    """Report an API without any credential, what is read without one, and weak ones."""
    if not roles:
        findings.warn(
            ADDRESS,
            f"no credential is configured, so every request is refused; set {KEY} or roles, see "
            "docs/control-api.md",
        )
    free = sorted({route for it in roles if it.auth is Auth.NONE for route in it.routes})
    if free and not is_local(address):
        findings.warn(
            ADDRESS,
            f"everyone who reaches port {address.port} can read {', '.join(free[:MOST_NOTICES])} "
            "without a credential",
        )
    for it in roles:
        if it.credential and len(_guessed(it)) < SHORTEST_KEY:
            findings.warn(
                ADDRESS,
                f"the credential of the role {it.name} is shorter than {SHORTEST_KEY} characters "
                "and may be guessed; make one with: openssl rand -hex 24",
            )


def _guessed(role: Role) -> str:
    """Return the part of a credential that a stranger has to guess."""
    text = role.credential.reveal() if role.credential else ""
    return text.partition(":")[2] if role.auth is Auth.BASIC else text


def is_local(address: HostPort) -> bool:
    """Return whether only this namespace reaches `address`."""
    return address.host.startswith("127.") or address.host == "::1"


def check_reachable(
    address: HostPort | None,
    health: HostPort,
    input_ports: Sequence[PortRange],
    findings: Findings,
    *,
    while_down: bool,
) -> None:
    """Report an address that cannot be reached from outside, or not when it is needed."""
    if address is None:
        return
    if address.port == health.port and (
        address.host == health.host or not (address.host and health.host)
    ):
        findings.problem(
            ADDRESS, f"port {address.port} is that of HEALTH_SERVER_ADDRESS; write another one"
        )
    if is_local(address):
        return
    listed = any(
        it.protocol is Protocol.TCP and it.first <= address.port <= it.last for it in input_ports
    )
    if not listed:
        findings.info(
            ADDRESS,
            f"port {address.port} can be reached only from this namespace until "
            f"FIREWALL_INPUT_PORTS lists {address.port}/tcp",
        )
    elif not while_down:
        findings.warn(
            ADDRESS,
            f"with FIREWALL_INPUT_PORTS_WHILE_DOWN=off, port {address.port} is closed while the "
            "tunnel is down: what is paused cannot be resumed from outside",
        )
