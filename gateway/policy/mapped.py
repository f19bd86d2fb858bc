"""What is asked of a server that forwards ports, and what is known of each port: values."""

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model import Protocol
from gateway.model.frozen import frozen
from gateway.policy.portmap import Version

NEVER = float("inf")
FIRST_DYNAMIC, LAST_DYNAMIC = 20000, 60999
"""The ports of which one is asked for where any will do."""


class PortProblem(StrEnum):
    """Why the server forwards no port, or fewer than wanted."""

    SILENT = "server_silent"
    NOT_LISTENING = "not_listening"
    UNSENT = "not_sent"
    UNSUPPORTED_VERSION = "unsupported_version"
    NOT_AUTHORIZED = "not_authorized"
    NETWORK_FAILURE = "network_failure"
    NO_RESOURCES = "no_resources"
    UNSUPPORTED = "unsupported"
    REFUSED = "refused"
    TOO_SHORT = "lifetime_too_short"
    PORTS_DIFFER = "ports_differ"
    FEWER = "fewer_ports"


@frozen
class Wish:
    """One port: the `private` one that is asked for, None for any, and a wish for the public one.

    `at_public`: the server sends what arrives to the public port here, not to the private one.
    """

    private: int | None = None
    public: int = 0
    at_public: bool = False


@frozen
class Plan:
    """What to ask for: with `version` first, each port for `lifetime` seconds."""

    version: Version
    lifetime: int
    wishes: tuple[Wish, ...]


@frozen
class Granted:
    """A port as the internet sees it, and the one here that packets arrive at, until `until`.

    `index` is the place of its wish.
    """

    index: int
    public: int
    arriving: int
    until: float


@dataclass
class Leg:
    """A mapping of one protocol: what is known of it, and when it is asked for next."""

    protocol: Protocol
    due_at: float = NEVER
    wanted: int = 0
    public: int = 0
    expires_at: float = 0.0
    tries: int = 0
    failures: int = 0
    problem: PortProblem | None = None

    @property
    def waits(self) -> bool:
        """Whether a request has no answer yet."""
        return self.tries > 0

    def ask(self, now: float, wanted: int) -> None:
        """Have it asked for at `now`, best with the public port `wanted`."""
        self.due_at, self.wanted, self.tries = now, wanted, 0


@dataclass
class Slot:
    """One port: its two mappings, and what came of them."""

    index: int
    wish: Wish
    private: int
    udp: Leg = field(default_factory=lambda: Leg(Protocol.UDP))
    tcp: Leg = field(default_factory=lambda: Leg(Protocol.TCP))
    held: Granted | None = None
    differed: int = 0
    has_retried: bool = False

    @property
    def legs(self) -> tuple[Leg, Leg]:
        """Both mappings."""
        return self.udp, self.tcp

    @property
    def first_wish(self) -> int:
        """The public port that is asked for first: where any will do, the private one."""
        return self.wish.public or self.private
