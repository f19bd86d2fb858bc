"""The states of the gateway; see `gateway.policy.moves` for what they mean."""

from dataclasses import field, replace
from enum import StrEnum

from gateway.model import Address, Candidate, Errand, Times, Tunnel
from gateway.model.frozen import frozen
from gateway.model.lease import Lease
from gateway.policy.diagnosis import Diagnosis, Heard
from gateway.policy.evidence import Pulse
from gateway.policy.proof import Proof

RESOLVER_FAILURES = 5
"""Probes in a row that the tunnel's resolver leaves unanswered before it counts as silent.

Three questions go into a probe. Where every fifth packet is lost each way, one of 21 probes fails,
and five in a row fail once in four million. A thorough one asks 20 times, and counts as two where
the server is silent too.
"""


class Reason(StrEnum):
    """Why the tunnel carries traffic or not: stable codes, with texts in `report.REASONS`."""

    STARTING = "starting"
    NO_HANDSHAKE = "no_handshake"
    SILENT = "server_silent"
    ONE_WAY = "one_way"
    INTERFACE_LOST = "interface_lost"
    MOVED = "path_changed"
    NOT_BUILT = "not_built"
    NOT_RESOLVED = "name_not_resolved"
    NO_LIST = "no_server_list"
    NOT_REGISTERED = "key_not_registered"
    LOGIN_REFUSED = "login_refused"
    MEASURING = "measuring_servers"
    RETURNING = "trying_first_server"
    RECONFIGURED = "reconfigured"
    REQUESTED = "requested"
    PAUSED = "paused"
    FIREWALL = "firewall_failed"
    DRIFT = "drift"
    UNCHECKED = "kernel_unavailable"
    KEPT_DOWN = "link_kept_down"
    ANSWERS = "server_answers"
    RESOLVER_SILENT = "resolver_silent"
    RESOLVER_DOWN = "resolver_down"
    STOPPING = "stopping"
    HUNG = "hung"


EXPLAINED = frozenset(
    {
        *(Reason.STARTING, Reason.SILENT, Reason.ONE_WAY, Reason.INTERFACE_LOST),
        *(Reason.MOVED, Reason.RETURNING, Reason.RECONFIGURED, Reason.REQUESTED),
    }
)
"""Reasons that stay while the first handshake is awaited; after a failed one, NO_HANDSHAKE does."""


@frozen
class Locked:
    """Nothing passes but loopback, until the rules can be put into force at `retry_at`.

    `before` is what the gateway did before it was paused, if it was.
    """

    reason: Reason = Reason.STARTING
    since: float = 0.0
    retry_at: float = 0.0
    attempt: int = 0
    detail: str = ""
    before: "Resolving | Fetching | Connecting | Connected | None" = None


@frozen
class Trial:
    """The servers' handshakes are timed before one is chosen; `times` has those that came.

    `tried` is how many servers had their chance, see `gateway.policy.latency`.
    """

    times: Times = ()
    tried: int = 0


@frozen
class Turn:
    """Whose turn it is: the candidate at `position`, after `attempt` attempts that failed.

    `candidates` are never empty. Endpoints may still be names. `tried_at` is when a look-up or the
    building of the interface last ended, well or not. `trial` is None unless handshakes are timed
    now, as they are `by_latency`; `times` are those of the last trial that has ended. `diagnosis`
    is why the last handshake failed. `registered` counts how often the key was to be registered
    since a connection lasted, and that is not done again before `register_at`.
    """

    candidates: tuple[Candidate, ...]
    position: int = 0
    attempt: int = 0
    tried_at: float = float("-inf")
    by_latency: bool = False
    trial: Trial | None = None
    times: Times = ()
    diagnosis: Diagnosis | None = None
    registered: int = 0
    register_at: float = float("-inf")

    @property
    def candidate(self) -> Candidate:
        """The candidate whose turn it is."""
        return self.candidates[self.position]

    @property
    def explanation(self) -> str:
        """Why the last handshake failed, for people; "" if none has."""
        return self.diagnosis.text if self.diagnosis else ""

    @property
    def is_last(self) -> bool:
        """Whether the round ends with this candidate."""
        return self.position == len(self.candidates) - 1

    @property
    def rounds(self) -> int:
        """How many whole rounds will have failed if this candidate fails too."""
        return self.attempt // len(self.candidates) + 1

    def next(self) -> "Turn":
        """Return the turn after this one has failed."""
        following = (self.position + 1) % len(self.candidates)
        return replace(self, position=following, attempt=self.attempt + 1)


@frozen
class Query:
    """What distinguishes our question to `resolver`: its source port and its mark."""

    resolver: Address
    source_port: int
    mark: int


@frozen
class Resolving:
    """The name of the candidate's endpoint is to be looked up at `retry_at`.

    While `query` is under way it passes, and nothing else.
    """

    turn: Turn
    reason: Reason
    since: float
    retry_at: float
    detail: str = ""
    query: Query | None = None


@frozen
class Transfer:
    """What distinguishes our connection to a provider: its server, source port and mark."""

    server: Address
    port: int
    source_port: int
    mark: int


@frozen
class Fetching:
    """What the servers of the candidate follow from is to be requested at `retry_at`.

    That is a provider's list, or a login and then the registration of a key: `errands`, of which
    the one at `step` is next. While `query` for the name of its host, or `transfer` is under way,
    that passes, and nothing else. `addresses` are those of the host that have yet to be tried.
    `obtained` counts the servers that have taken the key.
    """

    turn: Turn
    reason: Reason
    since: float
    retry_at: float
    detail: str = ""
    query: Query | None = None
    addresses: tuple[Address, ...] = ()
    transfer: Transfer | None = None
    step: int = 0
    obtained: int = 0

    @property
    def wanted(self) -> Candidate:
        """The candidate whose turn it is, without the servers that have not answered."""
        return replace(self.turn.candidate, peers=())

    @property
    def errand(self) -> Errand:
        """What is requested next."""
        return self.wanted.errands[self.step]

    @property
    def begun_again(self) -> "Fetching":
        """The same with nothing that passes, and everything still to be requested."""
        return replace(self, query=None, addresses=(), transfer=None, step=0, obtained=0)


@frozen
class Connecting:
    """The encrypted flow passes, and nothing else: the tunnel has yet to prove itself.

    `tunnel` is the candidate with addresses for names. `built` says whether the interface exists
    for it; until then it is to be built at `retry_at`, and from then on it has until `give_up_at`.
    `pulse` is what has been seen since then, and `heard` what was noticed besides it. `begun_at` is
    when its handshake began, in seconds since the epoch by the wall clock, None if that is not
    known.
    """

    turn: Turn
    tunnel: Tunnel
    reason: Reason
    since: float
    retry_at: float
    built: bool = False
    give_up_at: float = 0.0
    detail: str = ""
    pulse: Pulse = field(default_factory=Pulse)
    begun_at: float | None = None
    heard: Heard = field(default_factory=Heard)


@frozen
class Connected:
    """The tunnel has had a handshake: it and the listed holes are open.

    `resolver_failures` counts the probes in a row that the tunnel's resolver did not answer, the
    first of them at `resolver_failing_at`. `proof` is what all probes have shown. The ports of
    `leases` are open in the tunnel (`gateway.policy.leases`).
    """

    turn: Turn
    tunnel: Tunnel
    since: float
    pulse: Pulse
    resolver_failures: int = 0
    resolver_failing_at: float = 0.0
    proof: Proof = field(default_factory=Proof)
    leases: tuple[Lease, ...] = ()

    @property
    def resolver_is_silent(self) -> bool:
        """Whether names cannot be resolved, according to the probes.

        While nothing at all is heard, it is the server that may be gone, and nothing is known of
        the resolver behind it.
        """
        heard_at = self.pulse.heard_at
        is_alone = heard_at is not None and heard_at > self.resolver_failing_at
        return self.resolver_failures >= RESOLVER_FAILURES and is_alone


@frozen
class Paused:
    """A request has paused the gateway: it has no tunnel until another request resumes it.

    `before` is what the gateway did. Its interface is removed at `retry_at`, unless `removed` says
    that it is. `refused`: the kernel did not take the rules for input ports, so these are closed
    until `open_at`, after `attempt` attempts.
    """

    since: float
    before: Resolving | Fetching | Connecting | Connected | None = None
    retry_at: float = 0.0
    removed: bool = False
    refused: bool = False
    open_at: float = 0.0
    attempt: int = 0
    detail: str = ""


@frozen
class Stopping:
    """The process is about to end: nothing passes any more, ever."""

    since: float = 0.0


State = Locked | Resolving | Fetching | Connecting | Connected | Paused | Stopping
