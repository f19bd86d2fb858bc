"""What the gateway knows at one moment: its state, and what it has begun and seen."""

from gateway.model import Config, Times
from gateway.model.frozen import frozen
from gateway.policy.actions import Work
from gateway.policy.facts import Facts
from gateway.policy.reload import Answer
from gateway.policy.resolvers import Finding
from gateway.policy.states import State

LONG_AGO = float("-inf")
NOTHING_SEEN = Facts()


@frozen
class Situation:
    """The state of the gateway, and what it has begun and seen.

    `facts` are the namespace as it was last seen, `tried` as it was when the way to the server was
    last tried. `changed`: the kernel reported a change that has not been looked at. `under_way` is
    the work that has not reported yet. `names_problem` is why names do not resolve, empty if they
    do. `mtu` is that of the tunnel's interface, None before there was one, `path_mtu` the largest
    packet that arrives, None while that is not known; both are in bytes. `reload` is the answer to
    the last request to read the configuration again, `times` those of the last handshakes that
    were timed. `not_answering` are resolvers of the workloads that were asked in vain. Times are
    those of `Moment.now`; each of the `_at` is when something was, or is, due. `carried` is what
    the tunnel had sent and received at the last probe, in bytes.
    """

    config: Config
    state: State
    facts: Facts = NOTHING_SEEN
    tried: Facts = NOTHING_SEEN
    changed: bool = False
    under_way: frozenset[Work] = frozenset()
    names_problem: str = ""
    mtu: int | None = None
    path_mtu: int | None = None
    reload: Answer | None = None
    times: Times = ()
    not_answering: tuple[Finding, ...] = ()
    verified_at: float = LONG_AGO
    verify_at: float = LONG_AGO
    sample_at: float = LONG_AGO
    probed_at: float = LONG_AGO
    carried: int = 0
    asked_at: float = LONG_AGO
    measured_at: float = LONG_AGO
    names_tried_at: float = LONG_AGO

    @property
    def known_times(self) -> Times:
        """How long handshakes took: the last ones, or those that were kept earlier."""
        kept = self.config.latency.times if self.config.latency else ()
        return self.times or kept

    @property
    def is_connecting(self) -> bool:
        """Whether a name is being looked up or the interface built."""
        return Work.CONNECT in self.under_way
