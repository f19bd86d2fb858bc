"""A configuration that was read again: how it differs from the running one, and what is answered.

Nothing here opens anything: a difference leads to other rules by the way that every state takes.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from gateway.model import Candidate, Config
from gateway.model.frozen import frozen

VARIABLES = {
    "tunnels": "the tunnel",
    "server_list": "VPN_SERVICE_PROVIDER",
    "outbound_subnets": "FIREWALL_OUTBOUND_SUBNETS",
    "public_subnets": "FIREWALL_OUTBOUND_SUBNETS",
    "input_ports": "FIREWALL_INPUT_PORTS",
    "input_ports_while_down": "FIREWALL_INPUT_PORTS_WHILE_DOWN",
    "vpn_input_ports": "FIREWALL_VPN_INPUT_PORTS",
    "health_probe": "HEALTH_PROBE",
    "endpoint_resolver": "WIREGUARD_ENDPOINT_RESOLVER",
    "up_command": "VPN_UP_COMMAND",
    "down_command": "VPN_DOWN_COMMAND",
    "host_names": "/etc/hosts",
    "block_files": "DNS_BLOCK_FILES",
    "port_client": "FORWARDED_PORT_CLIENT, or another variable of it",
    "control": "HTTP_CONTROL_SERVER_API_KEY, or another role of the control API",
}
"""What an answer calls the fields of a `Config` that can change while the gateway runs."""

NEED_RESTART = {
    "firewall": "FIREWALL_BACKEND",
    "implementation": "WIREGUARD_IMPLEMENTATION",
    "health_server": "HEALTH_SERVER_ADDRESS",
    "list_period": "UPDATER_PERIOD",
    "control_server": "HTTP_CONTROL_SERVER_ADDRESS",
    "latency": "SERVER_ORDER",
    "public_ip": "PUBLICIP_ENABLED, or another variable of the public address",
    "forwarding": "VPN_PORT_FORWARDING, or a variable that begins so",
    "name_server": "DNS_SERVER, or another variable of the gateway's resolver",
    "http_proxy": "HTTPPROXY, or another variable of the HTTP proxy",
    "socks_proxy": "SOCKS5_ENABLED, or another variable of the SOCKS5 proxy",
}
"""The same for those that cannot: they choose parts of the gateway when it starts."""

MADE_AT_START = ("port_client",)
"""Of VARIABLES those that can change, but not be switched on: nothing was made for them then."""

MOST_FAULTS = 8
LONGEST_FAULT = 250
"""How many faults an answer has, and of how many characters: the health check reads 64 KiB."""


class Outcome(StrEnum):
    """What came of reading the configuration again."""

    ACCEPTED = "accepted"
    """It is the running one; what has changed follows."""

    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """It is wrong, and the former one stays."""

    FAILED = "failed"
    """It could not be read, and the former one stays."""


@frozen
class Fault:
    """One thing that is wrong, and what to do; `variable` may be a file. No secret."""

    variable: str
    problem: str


@frozen
class Answer:
    """What came of reading the configuration again, which began at `begun_at` (`Moment.now`).

    `changed` are names of variables that differ, `needs_restart` those that do and stay as they
    were. `faults` are the first MOST_FAULTS of `found`.
    """

    begun_at: float
    outcome: Outcome
    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    found: int = 0


def not_reloaded(begun_at: float, outcome: Outcome, faults: tuple[Fault, ...]) -> Answer:
    """Return the answer for a configuration that has `faults`; long ones are cut."""
    cut = (Fault(_cut(it.variable), _cut(it.problem)) for it in faults[:MOST_FAULTS])
    return Answer(begun_at, outcome, faults=tuple(cut), found=len(faults))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_FAULT else f"{text[: LONGEST_FAULT - 3]}..."


def taken_over(running: Config, wanted: Config, begun_at: float) -> tuple[Config, Answer]:
    """Return the configuration that follows when `wanted` was read, and the answer.

    It is `running` itself where nothing differs that can change.
    """
    needing = NEED_RESTART | {it: VARIABLES[it] for it in MADE_AT_START if not getattr(running, it)}
    fixed = {name: getattr(running, name) for name in needing}
    needs_restart = _differing(running, wanted, needing)
    merged = replace(wanted, **fixed)
    changed = _differing(running, merged, VARIABLES)
    if "the tunnel" in changed and _without_names(running) == _without_names(merged):
        changed = tuple("DNS_ADDRESS" if it == "the tunnel" else it for it in changed)
    outcome = Outcome.ACCEPTED if changed else Outcome.UNCHANGED
    answer = Answer(begun_at, outcome, changed, needs_restart)
    return (merged if changed else running), answer


def _differing(running: Config, wanted: Config, names: dict[str, str]) -> tuple[str, ...]:
    differing = (
        text for name, text in names.items() if getattr(running, name) != getattr(wanted, name)
    )
    return tuple(dict.fromkeys(differing))


def _without_names(config: Config) -> list[Candidate]:
    return [without_names(tunnel) for tunnel in config.tunnels]


def without_names(candidate: Candidate) -> Candidate:
    """Return `candidate` without its resolvers, which can change without another interface."""
    return replace(candidate, dns=())


def position_of(former: Candidate, wanted: Sequence[Candidate]) -> int | None:
    """Return where `wanted` has the candidate `former`; None if nowhere.

    Other resolvers aside, and other servers that the key may be registered with later.
    """
    same = _connection_of(former)
    matching = (i for i, it in enumerate(wanted) if _connection_of(it) == same)
    return next(matching, None)


def _connection_of(candidate: Candidate) -> Candidate:
    is_complete = bool(candidate.peers)
    registration = None if is_complete else candidate.registration
    return replace(without_names(candidate), registration=registration)
