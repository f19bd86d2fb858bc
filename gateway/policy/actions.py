"""What the state machine wants to be done, as data; the loop does it after the rules are in force.

Work takes time and runs next to the loop, one piece of each kind at a time. The other actions are
calls to the kernel, which the loop makes itself.
"""

from enum import Enum, auto

from gateway.model import Address, Candidate, Errand, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.probing import Probe
from gateway.policy.states import Transfer


class Work(Enum):
    """A kind of work; its result is an event."""

    CONNECT = auto()
    """Looking up a name, building the interface or removing it: Asking and Resolved or Located,
    Built, or Failed; Removed."""

    FETCH = auto()
    """A request to a provider: Opened and Fetched, or NotFetched."""

    SAMPLE = auto()
    """Reading WireGuard's counters: Sampled or Lost."""

    PROBE = auto()
    """A probe in the tunnel: Probed."""

    MEASURE = auto()
    """Finding out which packets fit through the tunnel: Measured."""

    ASK = auto()
    """Asking the workloads' resolvers: ResolversAsked."""

    NAMES = auto()
    """Writing the resolver file: Wrote."""


@frozen
class LookAround:
    """Find out what the namespace looks like, and adapt the rules to it. Looked follows."""


@frozen
class Verify:
    """Compare the kernel with what was put there, and revert drift. Verified follows."""


@frozen
class LookUp:
    """Open the socket for a question about the candidate's names. Asking or Failed follows."""

    candidate: Candidate


@frozen
class Ask:
    """Send the question, whose hole is open: Work.CONNECT."""

    candidate: Candidate


@frozen
class Open:
    """Make the socket for a connection to `server` of a provider: Opened, or NotFetched."""

    errand: Errand
    server: Address


@frozen
class Fetch:
    """Do `errand` through the socket, whose hole is open, and keep the answer: Work.FETCH."""

    errand: Errand
    transfer: Transfer


@frozen
class ReadAgain:
    """Have the configuration read again. Reloaded or NotReloaded follows, some time."""


@frozen
class Build:
    """Make the way to the server, then the interface: Work.CONNECT.

    `timed`: its handshake is to begin at a moment that is known.
    """

    tunnel: Tunnel
    timed: bool = False


@frozen
class Remove:
    """Remove the interface, because the gateway is paused: Work.CONNECT. Removed follows."""


@frozen
class Sample:
    """Read the counters of the interface for `tunnel`: Work.SAMPLE.

    With `listens`, also what arrives about its flow, because handshakes have failed.
    """

    tunnel: Tunnel
    listens: bool = False


@frozen
class SendProbe:
    """Send a packet into the tunnel that should be answered: Work.PROBE.

    `echo` is sent with it. A `thorough` one is repeated, because the last one was not answered.
    """

    probe: Probe
    echo: Probe | None = None
    thorough: bool = False


@frozen
class AskResolvers:
    """Ask `resolvers` whether they answer: Work.ASK."""

    resolvers: tuple[Address, ...]


@frozen
class Measure:
    """Find the largest packet that fits, and fit the MTU of the interface: Work.MEASURE.

    `echoes` are sent to those that may answer, the best first. `mtu` is what the interface has, and
    `is_chosen` whether it stays so.
    """

    echoes: tuple[Probe, ...]
    mtu: int
    is_chosen: bool


@frozen
class WriteNames:
    """Write the resolver file for `tunnel` again: Work.NAMES."""

    tunnel: Tunnel


@frozen
class Count:
    """Read how many packets were refused."""


@frozen
class Abandon:
    """Cut off all work: it belongs to a state that has been left."""


Action = (
    LookAround
    | Verify
    | LookUp
    | Ask
    | Open
    | Fetch
    | ReadAgain
    | Build
    | Remove
    | Sample
    | SendProbe
    | AskResolvers
    | Measure
    | WriteNames
    | Count
    | Abandon
)
