"""The composition root: picks the parts that this kernel has, and runs the supervisor with them."""

import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import structlog

from gateway.daemon.loop import Supervisor
from gateway.daemon.names import take_resolvers
from gateway.daemon.patience import stop_by_signal, until_it_works
from gateway.daemon.ports import Parts
from gateway.daemon.producers import keep_listening
from gateway.errors import (
    MissingError,
    NetworkError,
    is_shortage,
)
from gateway.firewall import Firewall
from gateway.firewall.choose import choose, take_over
from gateway.firewall.nft.guard import Guard, GuardRules, guard_for
from gateway.model import INTERFACE, Backend, Config, Facts
from gateway.policy import limits
from gateway.policy.firewall import closed
from gateway.policy.marks import with_secret_mark
from gateway.policy.routing import LOCKED
from gateway.policy.rules import Ruleset
from gateway.policy.timing import Timing
from gateway.services.health import Board, HealthServer
from gateway.services.hooks import Hooks
from gateway.system import claim as sole
from gateway.system import conntrack, process
from gateway.system.aside import Aside
from gateway.system.exclusive import ExclusiveLinks
from gateway.system.features import has_xdp
from gateway.system.given import Given
from gateway.system.kept import KeptFile
from gateway.system.link_down import refuse_unnameable
from gateway.system.lookup import EndpointLookup
from gateway.system.namespace import Namespace
from gateway.system.network import Network, ipv6_usable
from gateway.system.probe import probe
from gateway.system.reserve import Reserve
from gateway.system.resolv import FILE, ResolverFile
from gateway.system.unplug import Unplug
from gateway.system.watch import watch
from gateway.system.xdp import Queues
from gateway.tunnel.choose import choose as choose_tunnel

T = TypeVar("T")

TIMING = Timing()
"""The figures of the running gateway."""

IPV6_IS_OFF = "the tunnel has an IPv6 address, but IPv6 is switched off for new links here"
SWITCH_IPV6_ON = 'set the sysctl net.ipv6.conf.all.disable_ipv6 to "0" (compose: sysctls)'


@dataclass(frozen=True)
class Tools:
    """What closing takes, made once: attempts that fail leave nothing behind.

    `first` says that no gateway has had the namespace before.
    """

    network: Network
    unplug: Unplug
    reserve: Reserve
    given: Given
    first: bool


@dataclass(frozen=True)
class Secured:
    """The namespace after the lock: closed by `firewall`, and what this kernel cannot do.

    It is ours while `claim` is open.
    """

    claim: socket.socket
    firewall: Firewall
    guard: Guard | None
    network: Network
    namespace: Namespace
    tools: Tools
    mark: int
    limits: tuple[str, ...]


class UplinkGuard:
    """The egress guard in the terms of the supervisor."""

    def __init__(self, guard: Guard, mark: int) -> None:
        self._guard = guard
        self._mark = mark

    def apply(self, ruleset: Ruleset, facts: Facts) -> None:
        """Let nothing leave by the uplinks of `facts` but what `ruleset` accepted."""
        self._guard.apply(self._rules(ruleset, facts))

    def verify(self, ruleset: Ruleset, facts: Facts) -> tuple[str, ...]:
        """Return what the kernel has otherwise."""
        return self._guard.verify(self._rules(ruleset, facts))

    def _rules(self, ruleset: Ruleset, facts: Facts) -> GuardRules:
        return guard_for(ruleset, facts.uplinks, self._mark, facts.routes, facts.down)

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the frames dropped; see `enforcement.Guard.refused`."""
        return self._guard.refused()


def patiently(work: Callable[[], T]) -> T:
    """Return what `work` returns; see `until_it_works`."""
    return until_it_works(work, TIMING)


def secure() -> Secured:
    """Close the namespace completely, as soon as there is what it takes; see `_secure`."""
    network = Network(INTERFACE)
    first = patiently(lambda: not network.has_routing(LOCKED))
    given = Given(ResolverFile(), KeptFile())
    tools = Tools(network, patiently(Unplug), Reserve(), given, first)
    if first:
        given.keep_first()
    return patiently(lambda: _secure(tools))


def _secure(tools: Tools) -> Secured:
    """Close the namespace completely and read that back; needs no configuration.

    The kernel's own tool has closed it before (gateway.lock.lockdown). Here the rules go in through
    the backend that will hold them, older flows are forgotten, the routes of the second barrier
    stand, and packet sockets are shut out. Raises MissingError or KernelError; what is closed stays
    so.
    """
    with ExitStack() as undo:
        claim = undo.enter_context(sole.claim())
        secured = _secured(claim, tools)
        undo.pop_all()
    return secured


def _secured(claim: socket.socket, tools: Tools) -> Secured:
    network, unplug = tools.network, tools.unplug
    links, told = _exclusive_links(network, unplug)
    firewall = choose(Backend.AUTO)
    take_over(firewall, closed())
    refuse_unnameable()
    mark = secrets.randbelow(2**32 - 1) + 1
    guard = None
    try:
        guard = Guard.find()
        facts = network.facts()
        guard.apply(guard_for(closed(), facts.uplinks, mark, down=facts.down))
    except MissingError as err:
        told.append(limits.without_guard(err.missing, err.remedy))
        if links:
            # Packet sockets send anyway: no reason to set a link down.
            links.close()
            links = None
            told.append(limits.without_queues("nor are packet sockets"))
    else:
        told += limits.of_guard(routed=guard.routed, in_advance=guard.in_advance)
    _set_up_again(unplug, links)
    network.apply_routing(LOCKED)
    try:
        conntrack.flush()
    except MissingError as err:
        told.append(f"flows older than the gateway are not forgotten: {err}")
    except NetworkError as err:
        if is_shortage(err):
            raise
        # No reason to end: no rule lets a packet out because its flow is established (P6).
        told.append(f"it is not certain that flows older than the gateway are forgotten: {err}")
    namespace = Namespace(network, mark if guard else None, unplug, links)
    return Secured(claim, firewall, guard, network, namespace, tools, mark, tuple(told))


def _set_up_again(unplug: Unplug, links: ExclusiveLinks | None) -> None:
    """Set links up that a gateway has set down for want of rules, which are in force now.

    Those with a queue that somebody else has stay down until it is free.
    """
    if problems := unplug.plug(links.down if links else ()):
        structlog.get_logger().warning("links are up again, not as they were", problems=problems)


def _exclusive_links(network: Network, unplug: Unplug) -> tuple[ExclusiveLinks | None, list[str]]:
    """Hold the queues of every link; None, and the limit, where this process cannot.

    A link with a queue that somebody else has is down from here on.
    """
    if not has_xdp():
        return None, []
    try:
        links = ExclusiveLinks(Queues(), network.is_tunnel, unplug)
    except MissingError as err:
        return None, [limits.without_queues(err.missing, err.remedy)]
    links.claim_patiently()
    links.enforce()
    return links, []


async def serve(config: Config, secured: Secured) -> None:
    """Run the gateway with `config` until SIGTERM or SIGINT; the namespace ends closed.

    Raises MissingError when this machine lacks something, KernelError when the kernel cannot be
    brought to refuse.
    """
    log = structlog.get_logger()
    firewall = secured.firewall
    if config.firewall not in {Backend.AUTO, firewall.name}:
        firewall = patiently(lambda: _chosen(config.firewall))
    board = Board(_clock)
    process.reap_orphans()
    tunnel = patiently(lambda: choose_tunnel(config.implementation, secured.network))
    files, flows = Aside(str(FILE)), Aside("connection tracking")
    given = secured.tools.given
    await take_resolvers(given, config, files, first=secured.tools.first)
    told = (
        *secured.limits,
        *firewall.limits,
        *limits.of_config(config),
        *limits.of_resolvers(config, given.problem),
    )
    for limit in told:
        log.warning("this machine cannot keep every promise", limit=limit)
    if any(candidate.has_family(6) for candidate in config.tunnels) and not ipv6_usable():
        log.warning("IPv6 stays refused", problem=IPV6_IS_OFF, remedy=SWITCH_IPV6_ON)
    supervisor = Supervisor(
        with_secret_mark(config, secrets.randbits(31)),
        Parts(
            firewall=firewall,
            guard=UplinkGuard(secured.guard, secured.mark) if secured.guard else None,
            tunnel=tunnel,
            network=secured.namespace,
            resolver=EndpointLookup(config.endpoint_resolver or next(iter(given.found), None)),
            hooks=Hooks(config.up_command, config.down_command),
            probe=probe,
            write_resolver=lambda resolvers: files.run(lambda: given.write(resolvers)),
            forget_flows=lambda: flows.run(conntrack.flush, TIMING.flush_time),
            publish=board.publish,
            clock=_clock,
            reserve=secured.tools.reserve.lent,
            limits=told,
        ),
        TIMING,
    )
    stop_by_signal(supervisor.stop)

    def changed() -> None:
        # Before the supervisor lets several changes come together: others may be as quick.
        secured.namespace.hold_links()
        supervisor.kernel_changed()

    await supervisor.run(
        watch=watch(changed),
        health=keep_listening(HealthServer(board), config.health_server, TIMING.bind_again),
    )


def _chosen(backend: Backend) -> Firewall:
    """Return the firewall that the user chose, once it has taken over."""
    firewall = choose(backend)
    take_over(firewall, closed())
    return firewall


def _clock() -> float:
    """Return seconds that continue while the machine is suspended, as a server's patience does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
