"""The machine as the supervisor sees it: what the composition root has to put together."""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gateway.firewall import Firewall
from gateway.model import Address, Config, Endpoint, Errand, Interface, Times, Tunnel
from gateway.model.frozen import frozen
from gateway.model.lease import Connection
from gateway.policy.actions import SendProbe
from gateway.policy.diagnosis import Heard
from gateway.policy.facts import Facts, Uplink
from gateway.policy.guard import GuardRules
from gateway.policy.limits import Limit
from gateway.policy.probing import Outcome, Probe
from gateway.policy.report import Status
from gateway.policy.resolvers import Finding
from gateway.policy.situation import NOTHING_SEEN
from gateway.policy.states import Query, Transfer
from gateway.policy.tables import Routing
from gateway.policy.translation import Translation
from gateway.policy.wanted import Vault
from gateway.tunnel import TunnelBackend

if TYPE_CHECKING:
    from gateway.policy.hijack import Redirection
    from gateway.policy.redirected import PortRedirection


class Resolver(Protocol):
    """Asks for the addresses of endpoints, from a socket of its own."""

    def open(self) -> Query:
        """Make the socket, and return what distinguishes its packets. Raises GatewayError."""

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        """Return the addresses of `names`, or the last known ones if no answer comes.

        Closes the socket. Raises GatewayError for a name that never had an answer.
        """


class ProviderHosts(Protocol):
    """Makes requests to hosts of VPN providers, by one connection at a time."""

    def open(self, errand: Errand, server: Address) -> Transfer:
        """Make the socket, and return what distinguishes its packets. Raises GatewayError."""

    async def fetch(self, errand: Errand) -> None:
        """Do `errand` through the socket, close that, and keep in a file what it brings.

        The token of a login is kept with the first server that takes the key. Raises GatewayError,
        LoginError where the provider does not accept the user.
        """


class Hooks(Protocol):
    """The user's commands."""

    def up(self) -> None:
        """Start the command for a tunnel that carries traffic."""

    def down(self) -> None:
        """Start the command for one that no longer does."""

    async def finish(self) -> None:
        """Wait until all is done, but not for long."""


class LinksAndRoutes(Protocol):
    """The links, routes and per-device settings of a network namespace."""

    def facts(self) -> Facts:
        """Return what the namespace looks like now."""

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        """Return why the link `name` cannot carry packets from `addresses`; empty if it can."""

    def carried(self, name: str) -> bytes:
        """Return the packet and byte counters of the link `name`, to be compared only.

        Raises NetworkError.
        """

    def set_mtu(self, name: str, mtu: int) -> None:
        """Set the largest packet of the link `name` to `mtu` bytes. Raises NetworkError."""

    def prepare(self, uplink: str) -> None:
        """Give `uplink` the per-device settings that the promises need. Raises NetworkError."""

    def apply_routing(self, wanted: Routing) -> None:
        """Make the gateway's tables and policy rules hold exactly `wanted`.

        Raises NetworkError.
        """

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Return what is different from `wanted` in the kernel. Raises NetworkError."""

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Return the per-device settings of `uplink` that are not as `prepare` set them."""

    def shut_unnameable(self) -> tuple[str, ...]:
        """Set links down that no rule can name; return those that were up. Raises NetworkError."""

    def shut_shared(self) -> tuple[str, ...]:
        """Keep links down through which others can send below the rules.

        Return them, each with the reason. Raises NetworkError.
        """

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...]:
        """Set every link but loopback down, or `only` those with these indexes.

        Return those of them that are still up. Raises NetworkError.
        """

    def reopen(self) -> tuple[str, ...]:
        """Set the links up again that `shut` has set down; return what could not be restored.

        Raises NetworkError.
        """


class EgressGuard(Protocol):
    """The egress hook of every uplink, which drops what did not pass the firewall."""

    def apply(self, rules: GuardRules) -> None:
        """Put `rules` into force in place of the former ones, in one step, and read them back.

        Raises FirewallError; the kernel then holds the former rules or these.
        """

    def verify(self, rules: GuardRules) -> tuple[str, ...]:
        """Return what is different from `rules` in the kernel. Raises FirewallError."""

    def refused(self) -> Mapping[tuple[str, str], int]:
        """Return the frames dropped since the last `apply`. Raises FirewallError."""


def _nothing_heard(_: tuple[Endpoint, ...]) -> Heard:
    return Heard()


def _no_limits(_config: Config) -> tuple[Limit, ...]:
    return ()


class Passage(Protocol):
    """The pair of links between the gateway's namespace and a vault."""

    def make(self, end: Uplink, uplinks: Sequence[str]) -> None:
        """Make what is missing of it, and have `uplinks` forward. Raises NetworkError.

        `end` is the one in the vault, with its addresses and the largest packet of both.
        """

    def remove(self) -> None:
        """Remove it, if it is there. Raises NetworkError."""

    def faults(self, end: Uplink, uplinks: Sequence[str]) -> tuple[str, ...]:
        """Return what is missing of it, one line each. Raises NetworkError."""


class Translator(Protocol):
    """The kernel's translation of addresses in the gateway's namespace."""

    def apply(self, translation: Translation, /) -> None:
        """Put `translation` into force and read it back. Raises FirewallError."""

    def verify(self, translation: Translation, /) -> tuple[str, ...]:
        """Return what is different from `translation` in the kernel. Raises FirewallError."""


R_contra = TypeVar("R_contra", contravariant=True)


class Redirector(Protocol[R_contra]):
    """A redirection of the kernel: of questions to the gateway's own resolver, or of ports."""

    def apply(self, redirection: R_contra | None, /) -> None:
        """Put `redirection` into force and read it back. Raises FirewallError."""

    def verify(self, redirection: R_contra | None, /) -> tuple[str, ...]:
        """Return what is different from `redirection` in the kernel. Raises FirewallError."""

    def refused(self) -> Mapping[tuple[str, str], int]:
        """Return the packets refused since the last `apply`, as `Firewall.refused` has them.

        Raises FirewallError.
        """


@frozen
class Inside:
    """The namespace of the tunnel and the workloads, where that is another one: a vault.

    `passage` and `translator` are for listed holes; None where there can be none.
    """

    firewall: Firewall
    network: LinksAndRoutes
    vault: Vault
    passage: Passage | None = None
    translator: Translator | None = None


@frozen
class Closed:
    """What was closed before there was a loop.

    `seen` is what the namespace looked like when its guard was closed. `redirector` is None where
    nothing is ever redirected, and so is `port_redirector`.
    """

    seen: Facts = NOTHING_SEEN
    inside: Inside | None = None
    redirector: "Redirector[Redirection] | None" = None
    port_redirector: "Redirector[PortRedirection] | None" = None


@frozen
class Parts:
    """Every part; `clock` gives seconds, suspended ones too.

    `publish` takes each status; `confirm` says that the last one is true, and the kernel as wanted.

    `not_answering` returns those of the given resolvers that do not answer.

    `echo` returns the largest of the given sizes that is answered, None if none is.

    `overheard` returns what arrived about the flow to some endpoints since it was called last, and
    listens for more; without endpoints it stops listening. It neither waits nor raises.

    `read_again` has the configuration read again. `remember` keeps the times of handshakes for
    later starts with the same servers; it does not wait.

    `reserve` lends descriptors to what has to be put into force when there are none left.
    `write_resolver` gives workloads the resolvers for a tunnel; it raises NetworkError, and takes
    half a second at most. `carries` is called when the tunnel has come up, or its leases have
    changed, and with None when it is lost; the rules are in force then. `limits` are the machine's.
    `adopt` gives a configuration, with its marks, to the parts that use it by themselves, at the
    start and whenever it changes, and returns its limits.
    """

    firewall: Firewall
    guard: EgressGuard | None
    tunnel: TunnelBackend
    network: LinksAndRoutes
    resolver: Resolver
    provider: ProviderHosts
    hooks: Hooks
    probe: Callable[[SendProbe], Coroutine[Any, Any, Outcome]]
    not_answering: Callable[[tuple[Address, ...]], Coroutine[Any, Any, tuple[Finding, ...]]]
    echo: Callable[[Probe, tuple[int, ...]], Coroutine[Any, Any, int | None]]
    write_resolver: Callable[[Tunnel], Coroutine[Any, Any, None]]
    publish: Callable[[Status], None]
    confirm: Callable[[], None]
    clock: Callable[[], float]
    read_again: Callable[[], None]
    remember: Callable[[Times, tuple[str, ...]], None]
    reserve: Callable[[], AbstractContextManager[None]] = nullcontext
    carries: Callable[[Connection | None], None] = lambda _now: None
    limits: tuple[Limit, ...] = ()
    adopt: Callable[[Config], tuple[Limit, ...]] = _no_limits
    overheard: Callable[[tuple[Endpoint, ...]], Heard] = _nothing_heard
    closed: Closed = Closed()

    @property
    def around_tunnel(self) -> LinksAndRoutes:
        """The namespace that the tunnel's interface is in."""
        inside = self.closed.inside
        return inside.network if inside else self.network
