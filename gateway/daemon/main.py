"""The composition root: picks the parts that this kernel has, and runs the supervisor with them."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.daemon.adopting import Adopters, Adopting, carrier
from gateway.daemon.forwarding import redirector_for
from gateway.daemon.inbox import Inbox
from gateway.daemon.loop import Supervisor
from gateway.daemon.names import take_resolvers
from gateway.daemon.on_demand import OverheardOnDemand, ProviderOnDemand
from gateway.daemon.patience import RELOAD_SIGNAL, STOP_SIGNALS, at_signals
from gateway.daemon.ports import Closed, Parts, Redirector
from gateway.daemon.producers import keep_listening
from gateway.daemon.reloading import Reloader
from gateway.daemon.resolving import Resolving, Tools
from gateway.daemon.securing import (
    PLACE,
    TIMING,
    TUNNEL,
    UPLINKS,
    Secured,
    log_limits,
    patiently,
)
from gateway.daemon.services import Services, services_of
from gateway.daemon.services import Tools as ServiceTools
from gateway.firewall import Firewall
from gateway.firewall.choose import choose, take_over
from gateway.model import INTERFACE, Backend, Config
from gateway.model.frozen import frozen
from gateway.policy.limits import Limit
from gateway.policy.marks import with_secret_mark
from gateway.policy.orders import Ordered
from gateway.services.health.board import Board
from gateway.services.health.server import HealthServer
from gateway.services.hooks import Hooks
from gateway.system import process
from gateway.system.aside import Aside
from gateway.system.asking import not_answering
from gateway.system.echoes import largest_answered
from gateway.system.links import Links
from gateway.system.lookup import EndpointLookup
from gateway.system.netns import Netns
from gateway.system.order_signals import SIGNALS
from gateway.system.resolv import FILE
from gateway.system.watch import watch
from gateway.tunnel import TunnelBackend
from gateway.tunnel.choose import choose as choose_tunnel

if TYPE_CHECKING:
    from gateway.daemon.remembering import Memory
    from gateway.daemon.vaulted import TakenVault
    from gateway.policy.redirected import PortRedirection


@frozen
class _Base:
    """What the parts are made of; `inside` is the namespace of the tunnel."""

    environ: Mapping[str, str]
    secured: Secured
    firewall: Firewall
    inside: Netns
    board: Board
    inbox: Inbox
    resolving: Resolving
    number: int
    """What secret marks are made of."""

    def marked(self, config: Config) -> Config:
        """Return `config` with the secret marks of this run."""
        return with_secret_mark(config, self.number)


@frozen
class _Made:
    """The parts that others are connected with."""

    reloader: Reloader
    services: Services
    adopting: Adopting
    adopters: Adopters
    port_redirector: "Redirector[PortRedirection] | None"
    memory: "Memory | None"
    limits: tuple[Limit, ...]


async def serve(config: Config, secured: Secured, environ: Mapping[str, str]) -> None:
    """Run the gateway with `config` until SIGTERM or SIGINT; the namespace ends closed.

    At SIGHUP the configuration is read again, with the variables `environ` of the start. Raises
    MissingError when this machine lacks something, KernelError when the kernel cannot be brought to
    refuse.
    """
    firewall = secured.firewall
    if config.firewall not in {Backend.AUTO, firewall.name}:
        firewall = patiently(lambda: _chosen(config.firewall))
    board = Board(_clock)
    process.reap_orphans()
    inside = secured.vault.netns if secured.vault else TUNNEL
    tunnel = patiently(
        lambda: choose_tunnel(
            config.implementation, Links(INTERFACE, inside), Links(INTERFACE, UPLINKS)
        )
    )
    files, given = Aside(str(FILE)), secured.tools.given
    tools = Tools(files, given, inside, environ, _clock, is_up=lambda: board.is_healthy)
    resolving = patiently(partial(Resolving, config, tools))
    config = resolving.config
    await take_resolvers(given, config, files, first=secured.tools.first)
    number = secrets.randbits(31)
    base = _Base(environ, secured, firewall, inside, board, Inbox(), resolving, number)
    made = _made(base, config)
    supervisor = Supervisor(base.marked(config), _parts(base, made, tunnel), TIMING, base.inbox)
    board.ask_to_count = partial(_soon, asyncio.get_running_loop(), supervisor.count)
    at_signals(STOP_SIGNALS, partial(made.services.leave, supervisor.stop))
    at_signals([RELOAD_SIGNAL], made.reloader.ask)
    _at_orders(base.inbox)

    def changed() -> None:
        # Before the supervisor lets several changes come together: others may be as quick.
        secured.namespace.hold_links()
        supervisor.kernel_changed()

    others = _others(base, made, supervisor, config)
    await supervisor.run(
        watch=watch(changed, UPLINKS),
        health=keep_listening(HealthServer(board), config.health_server, TIMING.bind_again),
        reload=made.reloader.run(),
        **others,
    )


def _made(base: _Base, config: Config) -> _Made:
    """Make the parts, and connect them with the board."""
    board, secured, resolving = base.board, base.secured, base.resolving
    board.resolver = resolving.report
    limits = resolving.of_machine((*secured.limits, *base.firewall.limits, *resolving.limits))
    log_limits(limits)
    reloader = Reloader(
        base.environ,
        lambda config: base.marked(resolving.settled(config)),
        base.inbox.read_again,
        _clock,
        TIMING,
    )
    port_redirector = patiently(partial(redirector_for, config, base.inside))
    redirects = port_redirector is not None
    services = services_of(config, _service_tools(base, reloader, redirects=redirects))
    board.services, board.public_ip = services.reports, services.public_ip
    adopters = Adopters(
        Hooks((), ()),
        EndpointLookup(None, UPLINKS),
        secured.tools.given,
        resolving,
        services,
        secured.vault,
        base.inside,
    )
    adopting = Adopting(config, base.number, adopters)
    return _Made(reloader, services, adopting, adopters, port_redirector, _memory(config), limits)


def _service_tools(base: _Base, reloader: Reloader, *, redirects: bool) -> ServiceTools:
    """Return what services get."""
    board = base.board
    return ServiceTools(
        base.environ,
        base.inside,
        UPLINKS,
        _clock,
        base.inbox.lease,
        base.inbox.order,
        reloader.ask,
        lambda: board.status,
        base.firewall.limits,
        lambda: board.past,
        redirects=redirects,
    )


def _parts(base: _Base, made: _Made, tunnel: TunnelBackend) -> Parts:
    """Return what the supervisor works with."""
    secured, board, resolving, inside = base.secured, base.board, base.resolving, base.inside
    vault, memory = secured.vault, made.memory
    return Parts(
        firewall=base.firewall,
        guard=secured.guard,
        tunnel=tunnel,
        network=secured.namespace,
        resolver=made.adopters.lookup,
        provider=ProviderOnDemand(base.environ, UPLINKS),
        hooks=made.adopters.hooks,
        probe=resolving.probe,
        not_answering=partial(not_answering, netns=inside),
        overheard=OverheardOnDemand(UPLINKS),
        echo=partial(largest_answered, netns=inside),
        write_resolver=resolving.write,
        carries=carrier(resolving.follow, made.services.follow),
        publish=board.publish,
        confirm=board.confirm,
        clock=_clock,
        read_again=made.reloader.ask,
        remember=memory.take if memory else lambda _times, _servers: None,
        reserve=secured.tools.reserve.lent,
        limits=made.limits,
        adopt=made.adopting.adopt,
        closed=Closed(
            secured.closed_for,
            vault.inside(secured.tools.links) if vault else None,
            patiently(resolving.redirector),
            made.port_redirector,
        ),
    )


def _others(
    base: _Base, made: _Made, supervisor: Supervisor, config: Config
) -> dict[str, Coroutine[Any, Any, None]]:
    """Return what runs as long as the gateway where it is wanted, by name."""
    others = {
        **base.resolving.producers(),
        **made.services.producers(),
        **_in_vault(base.secured.vault, supervisor.kernel_changed),
    }
    if made.memory:
        others["times of handshakes"] = made.memory.run()
    if config.list_period:
        tools = (ProviderOnDemand(base.environ, base.inside, INTERFACE), base.board)
        lookup = EndpointLookup(None, base.inside)
        others["list"] = _fresh(lambda: made.adopting.running, lookup, *tools, made.reloader.ask)
    return others


def _at_orders(inbox: Inbox) -> None:
    """Have the loop follow what the commands ask of it."""
    for order, number in SIGNALS.items():
        at_signals([number], partial(inbox.order, Ordered(order)))


def _in_vault(
    vault: "TakenVault | None", changed: Callable[[], None]
) -> dict[str, Coroutine[Any, Any, None]]:
    """Return what follows a vault, if there is one: its changes, and its end."""
    if vault is None:
        return {}
    return {"changes in the vault": watch(changed, vault.netns), "end of the vault": vault.ended()}


def _fresh(
    running: Callable[[], Config],
    lookup: EndpointLookup,
    provider: ProviderOnDemand,
    board: Board,
    read_again: Callable[[], None],
) -> Coroutine[Any, Any, None]:
    """Return what fetches the list again through the tunnel, each period of the configuration."""
    from gateway.daemon.refreshing import Tools, keep_fresh  # noqa: PLC0415 - seldom needed

    tools = Tools(lookup, provider, lambda: board.is_healthy, read_again)
    return keep_fresh(running, running().list_period or 0, tools)


def _memory(config: Config) -> "Memory | None":
    """Return what keeps the times of handshakes, if they are wanted."""
    if not config.latency:
        return None
    from gateway.daemon.remembering import Memory  # noqa: PLC0415 - seldom needed

    return Memory()


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
