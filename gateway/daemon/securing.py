"""The lock, completed: the namespace is closed and read back, before the configuration is known."""

import logging
import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from gateway.daemon.enforced import EnforcedGuard
from gateway.daemon.last_barrier import shut_links
from gateway.daemon.looks import Looks
from gateway.daemon.patience import until_it_works
from gateway.daemon.ports import EgressGuard
from gateway.errors import (
    FirewallError,
    GatewayError,
    KernelError,
    MissingError,
    NetworkError,
    is_shortage,
)
from gateway.firewall import Firewall
from gateway.firewall.choose import choose, take_over
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.program import Nft
from gateway.model import INTERFACE, Backend
from gateway.model.frozen import frozen
from gateway.policy.facts import Facts
from gateway.policy.firewall import closed
from gateway.policy.limits import (
    Limit,
    LimitCode,
    limit_of_old_flows,
    limit_without_flush,
    limit_without_guard,
    limit_without_queues,
    limits_of_guard,
)
from gateway.policy.marks import secret
from gateway.policy.routing import LOCKED
from gateway.policy.timing import Timing
from gateway.policy.topology import SHARED, LinkKind
from gateway.policy.wanted import Wanted
from gateway.system import claim as sole
from gateway.system import conntrack
from gateway.system import vault as vaulted
from gateway.system.exclusive import ExclusiveLinks
from gateway.system.features import has_xdp
from gateway.system.given import NOTE, Given
from gateway.system.kept import KeptFile
from gateway.system.link_down import refuse_unnameable
from gateway.system.links import Links
from gateway.system.meanwhile import meanwhile
from gateway.system.namespace import Namespace
from gateway.system.netns import OWN
from gateway.system.note import Note
from gateway.system.reserve import Reserve
from gateway.system.resolv import ResolverFile
from gateway.system.unplug import Unplug
from gateway.system.xdp import Queues

if TYPE_CHECKING:
    from gateway.daemon.vaulted import TakenVault

T = TypeVar("T")

TIMING = Timing()
"""The figures of the running gateway."""

PLACE = SHARED.holder_of(LinkKind.UPLINKS)
NETNS = dict.fromkeys((place.name for place in SHARED.places), OWN)
UPLINKS, TUNNEL = NETNS[PLACE.name], NETNS[SHARED.holder_of(LinkKind.TUNNEL).name]
"""What the namespace of the uplinks must hold, and the namespaces as this process has them."""


@frozen
class Tools:
    """What closing takes, made once: attempts that fail leave nothing behind.

    `first` says that no gateway has had the namespace before.
    """

    links: Links
    unplug: Unplug
    reserve: Reserve
    given: Given
    first: bool


@frozen
class Secured:
    """The namespace after the lock: closed by `firewall`, and what this kernel cannot do.

    It is ours while `claim` is open.
    """

    claim: socket.socket
    firewall: Firewall
    guard: Guard | None
    namespace: Namespace
    tools: Tools
    limits: tuple[Limit, ...]
    closed_for: Facts
    """What the namespace looked like when its guard was closed; nothing seen without a guard."""
    vault: "TakenVault | None" = None
    """The vault that has the workloads and the tunnel, if there is one."""


def patiently(work: Callable[[], T]) -> T:
    """Return what `work` returns; see `until_it_works`."""
    return until_it_works(work, TIMING)


def secure() -> Secured:
    """Close the namespace completely, as soon as there is what it takes; see `_secure`.

    The same for the namespace of a vault.
    """
    tools = tools_for_closing()
    secured = patiently(lambda: _secure(tools))
    vault = patiently(vaulted.find)
    if vault is None:
        return secured
    from gateway.daemon.vaulted import take_vault  # noqa: PLC0415 - seldom needed

    tools.given.write_to(ResolverFile(vaulted.RESOLVER_FILE))
    secured.namespace.have_tunnel_in(vault)
    return replace(secured, vault=patiently(lambda: take_vault(vault, UPLINKS)))


def tools_for_closing() -> Tools:
    """Return what closing takes; at the first start, keep the resolvers that we were given."""
    links = Links(INTERFACE, UPLINKS)
    first = patiently(lambda: not Namespace(links).has_routing(PLACE.locked))
    given = Given(ResolverFile(), KeptFile(), Note(NOTE, UPLINKS))
    tools = Tools(links, patiently(lambda: Unplug(UPLINKS)), Reserve(), given, first)
    if first:
        given.keep_first()
    return tools


def _secure(tools: Tools) -> Secured:
    """Close the namespace completely and read that back; needs no configuration.

    The kernel's own tool has closed it before (gateway.lock.lockdown). Here the rules go in through
    the backend that will hold them, the routes of the second barrier stand, and packet sockets are
    shut out. Flows are forgotten that began before the first lock. Later ones have met rules of
    ours from their first packet on, so their connections may continue where the rules to come let
    them. Raises MissingError or KernelError; what is closed stays so.
    """
    with ExitStack() as undo:
        claim = undo.enter_context(sole.claim(UPLINKS))
        secured = _secured(claim, tools)
        undo.pop_all()
    return secured


def _secured(claim: socket.socket, tools: Tools) -> Secured:
    links, unplug = tools.links, tools.unplug
    finding = meanwhile(lambda: Guard.find(Nft(netns=UPLINKS)))
    queues, limits = _exclusive_links(links, unplug)
    firewall = choose(Backend.AUTO, UPLINKS)
    with suppress(GatewayError):  # it is asked for below; nft does not try while it puts
        finding()
    take_over(firewall, PLACE.closed, UPLINKS)
    refuse_unnameable(UPLINKS)
    mark = secret(secrets.randbits(31))
    guard, closed_for = None, Facts()
    try:
        guard, closed_for = guard_closed(finding, tools, mark)
    except MissingError as err:
        limits.append(limit_without_guard(err.missing, err.remedy))
        if queues:
            # Packet sockets send anyway: no reason to set a link down.
            queues.close()
            queues = None
            limits.append(limit_without_queues("nor are packet sockets"))
    else:
        limits += limits_of_guard(routed=guard.routed, in_advance=guard.in_advance)
    _set_up_again(unplug, queues)
    if tools.first:  # before the routes, by which the next start knows that it is not the first
        limits += older_flows_forgotten()
    Namespace(links).apply_routing(PLACE.locked)
    namespace = Namespace(links, mark if guard else None, unplug, queues)
    return Secured(claim, firewall, guard, namespace, tools, tuple(limits), closed_for)


def guard_closed(finding: Callable[[], Guard], tools: Tools, mark: int) -> tuple[Guard, Facts]:
    """Return the guard of this kernel once it lets nothing leave, and for what it was closed.

    `finding` finds it, `mark` is its secret. Raises MissingError when this kernel has none, and
    KernelError when it was refused: then every link is down, because nothing else stops packet
    sockets.
    """
    try:
        guard = finding()
        _prepare(tools.links)
        return guard, close_guard(
            guard, lambda: replace(Namespace(tools.links).facts(), guard_mark=mark)
        )
    except KernelError as err:
        if not is_shortage(err):
            shut_links(tools.unplug.pull)
        raise


def older_flows_forgotten() -> tuple[Limit, ...]:
    """Make the kernel forget all flows; return the limit of a kernel that cannot show that it has.

    Raises NetworkError in a shortage. Any other failure does not end us: no rule lets a packet
    out because its flow is established (P6).
    """
    try:
        conntrack.flush(UPLINKS)
    except MissingError as err:
        return (limit_without_flush(err.missing, err.remedy),)
    except NetworkError as err:
        if is_shortage(err):
            raise
        return (limit_of_old_flows(str(err)),)
    return ()


def log_limits(limits: Iterable[Limit]) -> None:
    """Log each of `limits` with its remedy."""
    for limit in limits:
        is_common = limit.code is LimitCode.NO_GUARD_IN_ADVANCE  # every kernel before 6.16
        structlog.get_logger().log(
            logging.INFO if is_common else logging.WARNING,
            "reduced protection on this host",
            code=limit.code,
            limit=limit.text,
            remedy=limit.remedy,
        )


def _prepare(links: Links) -> None:
    """Give the uplinks their settings before the guard is read back, not to read it again after.

    What fails is left to the loop, which does not connect before they have them.
    """
    namespace = Namespace(links)
    with suppress(NetworkError):
        for uplink in namespace.facts().uplinks:
            namespace.prepare(uplink.name)


def _set_up_again(unplug: Unplug, links: ExclusiveLinks | None) -> None:
    """Set links up that a gateway has set down for want of rules, which are in force now.

    A link with a queue that another program holds stays down until the queue is free.
    """
    if problems := unplug.plug(links.down if links else ()):
        structlog.get_logger().warning("could not restore links", problems=problems)


def _exclusive_links(links: Links, unplug: Unplug) -> tuple[ExclusiveLinks | None, list[Limit]]:
    """Hold the queues of every link; None, and the limit, where this process cannot.

    A link with a queue that another program holds is down from here on.
    """
    if not has_xdp():
        return None, []
    try:
        queues = ExclusiveLinks(Queues(UPLINKS), links.is_tunnel, unplug)
    except MissingError as err:
        return None, [limit_without_queues(err.missing, err.remedy)]
    queues.claim_patiently()
    queues.enforce()
    return queues, []


def close_guard(guard: EgressGuard, look: Callable[[], Facts]) -> Facts:
    """Let nothing leave through any link that `look` finds; for the time before the first state.

    Return what was found last. Raises FirewallError when the guard was refused after LOOKS more
    looks as well, or in a shortage at once.
    """
    facts = look()
    looks = Looks(facts)
    part = EnforcedGuard(guard)
    while True:
        try:
            part.apply(Wanted(facts, closed(), LOCKED))
        except FirewallError as err:
            if looks.are_over or not part.may_miss_a_link(err):
                raise
            facts = looks.add(look())
        else:
            return facts
