"""The composition root: picks the parts that this kernel has, and runs the supervisor with them."""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from gateway.daemon.enforced import close_guard, shut_links
from gateway.daemon.loop import Supervisor
from gateway.daemon.names import take_resolvers
from gateway.daemon.patience import stop_by_signal, until_it_works
from gateway.daemon.ports import Parts
from gateway.daemon.producers import keep_listening
from gateway.errors import (
    KernelError,
    MissingError,
    NetworkError,
    is_shortage,
)
from gateway.firewall import Firewall
from gateway.firewall.choose import choose, take_over
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.table import Nft
from gateway.model import INTERFACE, Backend, Config
from gateway.policy import report
from gateway.policy.marks import secret, with_secret_mark
from gateway.policy.timing import Timing
from gateway.policy.topology import SHARED, LinkKind
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
from gateway.system.link_settings import ipv6_usable
from gateway.system.links import Links
from gateway.system.lookup import EndpointLookup
from gateway.system.namespace import Namespace
from gateway.system.netns import OWN
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

PLACE = SHARED.holder_of(LinkKind.UPLINKS)
NETNS = dict.fromkeys((place.name for place in SHARED.places), OWN)
UPLINKS, TUNNEL = NETNS[PLACE.name], NETNS[SHARED.holder_of(LinkKind.TUNNEL).name]
"""What the namespace of the uplinks must hold, and the namespaces as this process has them."""


@dataclass(frozen=True)
class Tools:
    """What closing takes, made once: attempts that fail leave nothing behind.

    `first` says that no gateway has had the namespace before.
    """

    links: Links
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
    namespace: Namespace
    tools: Tools
    limits: tuple[report.Limit, ...]


def patiently(work: Callable[[], T]) -> T:
    """Return what `work` returns; see `until_it_works`."""
    return until_it_works(work, TIMING)


def secure() -> Secured:
    """Close the namespace completely, as soon as there is what it takes; see `_secure`."""
    links = Links(INTERFACE, UPLINKS)
    first = patiently(lambda: not Namespace(links).has_routing(PLACE.locked))
    given = Given(ResolverFile(), KeptFile())
    tools = Tools(links, patiently(lambda: Unplug(UPLINKS)), Reserve(), given, first)
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
        claim = undo.enter_context(sole.claim(UPLINKS))
        secured = _secured(claim, tools)
        undo.pop_all()
    return secured


def _secured(claim: socket.socket, tools: Tools) -> Secured:
    links, unplug = tools.links, tools.unplug
    queues, limits = _exclusive_links(links, unplug)
    firewall = choose(Backend.AUTO, UPLINKS)
    take_over(firewall, PLACE.closed, UPLINKS)
    refuse_unnameable(UPLINKS)
    mark = secret(secrets.randbits(31))
    guard = None
    try:
        guard = Guard.find(Nft(netns=UPLINKS))
        close_guard(guard, lambda: replace(Namespace(links).facts(), guard_mark=mark))
    except KernelError as err:
        if not is_shortage(err):
            # The lock's guard may be missing too: nothing else stops packet sockets.
            shut_links(unplug.pull)
        raise
    except MissingError as err:
        limits.append(report.limit_without_guard(err.missing, err.remedy))
        if queues:
            # Packet sockets send anyway: no reason to set a link down.
            queues.close()
            queues = None
            limits.append(report.limit_without_queues("nor are packet sockets"))
    else:
        limits += report.limits_of_guard(routed=guard.routed, in_advance=guard.in_advance)
    _set_up_again(unplug, queues)
    Namespace(links).apply_routing(PLACE.locked)
    try:
        conntrack.flush(UPLINKS)
    except MissingError as err:
        limits.append(report.limit_without_flush(err.missing, err.remedy))
    except NetworkError as err:
        if is_shortage(err):
            raise
        # No reason to end: no rule lets a packet out because its flow is established (P6).
        limits.append(report.limit_of_old_flows(str(err)))
    namespace = Namespace(links, mark if guard else None, unplug, queues)
    return Secured(claim, firewall, guard, namespace, tools, tuple(limits))


def _set_up_again(unplug: Unplug, links: ExclusiveLinks | None) -> None:
    """Set links up that a gateway has set down for want of rules, which are in force now.

    A link with a queue that another program holds stays down until the queue is free.
    """
    if problems := unplug.plug(links.down if links else ()):
        structlog.get_logger().warning("could not restore links", problems=problems)


def _exclusive_links(
    links: Links, unplug: Unplug
) -> tuple[ExclusiveLinks | None, list[report.Limit]]:
    """Hold the queues of every link; None, and the limit, where this process cannot.

    A link with a queue that another program holds is down from here on.
    """
    if not has_xdp():
        return None, []
    try:
        queues = ExclusiveLinks(Queues(UPLINKS), links.is_tunnel, unplug)
    except MissingError as err:
        return None, [report.limit_without_queues(err.missing, err.remedy)]
    queues.claim_patiently()
    queues.enforce()
    return queues, []


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
    tunnel = patiently(lambda: choose_tunnel(config.implementation, Links(INTERFACE, TUNNEL)))
    files, flows = Aside(str(FILE)), Aside("connection tracking")
    given = secured.tools.given
    await take_resolvers(given, config, files, first=secured.tools.first)
    limits = (
        *secured.limits,
        *firewall.limits,
        *report.limits_of_config(config),
        *report.limits_of_resolvers(config, given.problem),
    )
    for limit in limits:
        log.warning(
            "reduced protection on this host",
            code=limit.code,
            limit=limit.text,
            remedy=limit.remedy,
        )
    if any(candidate.has_family(6) for candidate in config.tunnels) and not ipv6_usable(TUNNEL):
        log.warning("IPv6 stays rejected", problem=IPV6_IS_OFF, remedy=SWITCH_IPV6_ON)
    supervisor = Supervisor(
        with_secret_mark(config, secrets.randbits(31)),
        Parts(
            firewall=firewall,
            guard=secured.guard,
            tunnel=tunnel,
            network=secured.namespace,
            resolver=EndpointLookup(
                config.endpoint_resolver or next(iter(given.found), None), UPLINKS
            ),
            hooks=Hooks(config.up_command, config.down_command),
            probe=partial(probe, netns=TUNNEL),
            write_resolver=lambda resolvers: files.run(lambda: given.write(resolvers)),
            forget_flows=lambda: flows.run(partial(conntrack.flush, UPLINKS), TIMING.flush_time),
            publish=board.publish,
            clock=_clock,
            reserve=secured.tools.reserve.lent,
            limits=limits,
        ),
        TIMING,
    )
    loop = asyncio.get_running_loop()
    board.ask_to_count = lambda: _soon(loop, supervisor.count)
    stop_by_signal(supervisor.stop)

    def changed() -> None:
        # Before the supervisor lets several changes come together: others may be as quick.
        secured.namespace.hold_links()
        supervisor.kernel_changed()

    await supervisor.run(
        watch=watch(changed, UPLINKS),
        health=keep_listening(HealthServer(board), config.health_server, TIMING.bind_again),
    )


def _soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Have `work` done on `loop`, from any thread; nothing once the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work)


def _chosen(backend: Backend) -> Firewall:
    """Return the firewall that the user chose, once it has taken over."""
    firewall = choose(backend, UPLINKS)
    take_over(firewall, PLACE.closed, UPLINKS)
    return firewall


def _clock() -> float:
    """Return seconds that continue while the machine is suspended, as a server's patience does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
