"""What the state machine is informed of.

The first group says what happened to the connection (`gateway.policy.moves`). The second group
says what happened to the gateway's work (`gateway.policy.machine`). Each event comes from one
producer, or from the loop itself, which reports what an action of its own returned.
"""

from gateway.model import Address, Candidate, Config, Tunnel
from gateway.model.frozen import frozen
from gateway.model.lease import Lease
from gateway.policy.actions import Work
from gateway.policy.diagnosis import NOTHING, Heard
from gateway.policy.facts import Facts, TunnelStatus
from gateway.policy.orders import Ordered, Removed
from gateway.policy.probing import UNSENT, Outcome
from gateway.policy.reload import Answer
from gateway.policy.resolvers import Finding
from gateway.policy.states import Query, Transfer, Trial


@frozen
class Begin:
    """The rules can be changed: connect with one of `candidates`, the first ones preferred.

    `by_latency` says that the order is that of their handshakes, which `trial` is to find out.
    """

    candidates: tuple[Candidate, ...]
    by_latency: bool = False
    trial: Trial | None = None


@frozen
class Asking:
    """The socket for `query` is open, and the question is ready to be sent."""

    query: Query


@frozen
class Resolved:
    """The endpoint's name has addresses: `tunnels` is the candidate with each of them."""

    tunnels: tuple[Tunnel, ...]


@frozen
class Located:
    """The host of a provider has `addresses`, in the order in which they are tried; never empty."""

    addresses: tuple[Address, ...]


@frozen
class Opened:
    """The socket for `transfer` is there, and may connect."""

    transfer: Transfer


@frozen
class Fetched:
    """What was requested is kept; after the last request the configuration can be read again."""


@frozen
class NotFetched:
    """What was requested could not be obtained or kept, and why.

    `refused`: the provider does not accept the user's name and password.
    """

    detail: str
    refused: bool = False


@frozen
class Built:
    """The interface exists, with packets of `mtu` bytes.

    `names_problem` says why names will not resolve, empty if they do. `begun_at` is when the
    handshake began, in seconds since the epoch by the wall clock.
    """

    names_problem: str = ""
    mtu: int | None = None
    begun_at: float | None = None


@frozen
class Failed:
    """A name could not be resolved or the interface not be built, and why.

    `port` is the listen port for the next attempt, where the one that was wanted is taken.
    """

    detail: str
    port: int | None = None


@frozen
class Lost:
    """The interface is gone, down or renamed, and how that was noticed."""

    detail: str


@frozen
class Moved:
    """The way to the server is another one: an uplink, its address or its route, and which."""

    detail: str


@frozen
class Refused:
    """The kernel did not take the rules of the state, and why."""

    detail: str


@frozen
class Sampled:
    """WireGuard was asked for its counters; `heard` is what was noticed besides them."""

    status: TunnelStatus
    heard: Heard = NOTHING


@frozen
class Probed:
    """A probe was sent at `begun_at`, and `outcome` is what came of it.

    `answered` is None where that says nothing about the resolver. `is_thorough`: it was repeated
    for several seconds, and an echo to the server with it.
    """

    answered: bool | None
    outcome: Outcome = UNSENT
    begun_at: float = 0.0
    is_thorough: bool = False


@frozen
class ResolversAsked:
    """The workloads' resolvers were asked; those in `found` do not answer."""

    found: tuple[Finding, ...]


@frozen
class Measured:
    """The interface has packets of `mtu` bytes, and those of `path` bytes arrive.

    `path` is None if that could not be found out.
    """

    mtu: int
    path: int | None


@frozen
class Stop:
    """The process is to end."""


@frozen
class Tick:
    """The time has come at which something is due."""


@frozen
class Changed:
    """The kernel reported that links, addresses, routes or rules changed."""


@frozen
class Asked:
    """A client of the metrics wants to know how many packets were refused."""


@frozen
class Leased:
    """The server of `tunnel` forwards the ports of `leases` now, and no others."""

    tunnel: Tunnel
    leases: tuple[Lease, ...]


@frozen
class Looked:
    """The namespace was looked at, and `facts` were found."""

    facts: Facts


@frozen
class Verified:
    """The kernel was compared with what was put there; `drifted` if it was not the same."""

    drifted: bool


@frozen
class Wrote:
    """The resolver file was written, or `problem` says why not."""

    problem: str = ""


@frozen
class Reloaded:
    """The configuration was read again: `config`, with its marks. It began at `begun_at`."""

    config: Config
    begun_at: float


@frozen
class NotReloaded:
    """The configuration could not be read again, or is wrong; the running one stays."""

    answer: Answer


@frozen
class Troubled:
    """`work` could not be done because of `error`, which the loop judges."""

    work: Work
    error: Exception


Event = (
    Begin
    | Asking
    | Resolved
    | Located
    | Opened
    | Fetched
    | NotFetched
    | Built
    | Failed
    | Lost
    | Moved
    | Refused
    | Sampled
    | Probed
    | ResolversAsked
    | Measured
    | Stop
    | Tick
    | Changed
    | Asked
    | Leased
    | Looked
    | Verified
    | Wrote
    | Reloaded
    | NotReloaded
    | Ordered
    | Removed
    | Troubled
)

REPORTS: dict[type[Event], Work] = {
    Asking: Work.CONNECT,
    Resolved: Work.CONNECT,
    Located: Work.CONNECT,
    Opened: Work.FETCH,
    Fetched: Work.FETCH,
    NotFetched: Work.FETCH,
    Built: Work.CONNECT,
    Failed: Work.CONNECT,
    Removed: Work.CONNECT,
    Sampled: Work.SAMPLE,
    Lost: Work.SAMPLE,
    Probed: Work.PROBE,
    ResolversAsked: Work.ASK,
    Measured: Work.MEASURE,
    Wrote: Work.NAMES,
}
"""The event that each kind of work ends with."""
