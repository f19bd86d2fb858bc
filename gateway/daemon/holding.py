"""`gateway hold`: closes a namespace that a gateway will use, and holds it for the workloads.

It closes once and never looks again: from then on the namespace is a gateway's, which runs in
another container and may come and go. So what it leaves behind is what every gateway expects: the
closed rules, guard and routes, no claim, and no queue of a link.

It can be run while a gateway works. The lock at the start of the process has closed the rules then,
and the gateway reverts that as a change by another program. Nothing here may then open anything:
no firewall is emptied, because its rules may be the gateway's, and no link is set up, because the
gateway may keep it down.
"""

import os
import secrets
import sys
from pathlib import Path
from typing import NoReturn

import structlog

from gateway.daemon.securing import (
    PLACE,
    UPLINKS,
    Tools,
    guard_closed,
    log_limits,
    older_flows_forgotten,
    patiently,
    tools_for_closing,
)
from gateway.errors import FirewallError, MissingError, NetworkError
from gateway.firewall import Firewall
from gateway.firewall.choose import choose
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.program import Nft
from gateway.model import Backend
from gateway.policy.limits import Limit, limit_without_guard
from gateway.policy.marks import secret
from gateway.system import claim as sole
from gateway.system.link_down import refuse_unnameable
from gateway.system.namespace import Namespace

WAITING = Path(__file__).parents[1] / "lock" / "waiting.py"


def hold() -> None:
    """Close the namespace as the gateway does, and read that back; needs no configuration.

    Leaves it alone, apart from the lock at the start of this process, where a gateway of this
    process namespace has it. Raises MissingError or KernelError; what is closed stays so.
    """
    log = structlog.get_logger()
    try:
        patiently(lambda: sole.claim(UPLINKS).close())
    except MissingError as err:
        log.warning("a gateway has this namespace", problem=err.missing)
        return
    tools = tools_for_closing()
    firewall, limits = patiently(lambda: _closed(tools))
    log.info("locked", firewall=firewall.name)
    log_limits(limits)
    if tools.first:
        _pass_on_resolvers(tools)


def wait() -> NoReturn:
    """Become a small process that waits for SIGTERM or SIGINT, and then ends with 0.

    Those that have arrived are not lost: they are blocked, and stay so. Nothing of this process's
    environment goes with it.
    """
    argv = [sys.executable, "-I", "-S", str(WAITING)]
    patiently(lambda: os.execve(sys.executable, argv, {}))  # noqa: S606 - that is the purpose
    raise AssertionError("execve(2) returned")


def _closed(tools: Tools) -> tuple[Firewall, tuple[Limit, ...]]:
    """Put the closed rules, guard and routes into force; return the firewall and what it lacks."""
    firewall = _firewall()
    firewall.apply(PLACE.closed)
    if problems := firewall.verify(PLACE.closed):
        raise FirewallError("holding", "; ".join(problems))
    refuse_unnameable(UPLINKS)
    limits: tuple[Limit, ...] = ()
    try:
        guard_closed(lambda: Guard.find(Nft(netns=UPLINKS)), tools, secret(secrets.randbits(31)))
    except MissingError as err:
        limits += (limit_without_guard(err.missing, err.remedy),)
    if tools.first:
        if problems := tools.unplug.plug():
            structlog.get_logger().warning("could not restore links", problems=problems)
        limits += older_flows_forgotten()
    namespace = Namespace(tools.links)
    namespace.apply_routing(PLACE.locked)
    if not namespace.has_routing(PLACE.locked):
        raise NetworkError("closing: the routes of the closed state are not all there", "")
    return firewall, limits


def _firewall() -> Firewall:
    """Return the firewall that the lock has used, so that no gateway meets rules in another one."""
    try:
        return choose(Backend.IPTABLES, UPLINKS)
    except MissingError:
        return choose(Backend.NFTABLES, UPLINKS)


def _pass_on_resolvers(tools: Tools) -> None:
    """Note the resolvers of this container for the gateways to come, which have its file."""
    try:
        tools.given.pass_on()
    except NetworkError as err:
        structlog.get_logger().warning("could not note the given resolvers", problem=str(err))
