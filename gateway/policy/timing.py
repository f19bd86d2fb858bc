"""How long the gateway waits, and how often it does things: every figure, with its reason.

The composition root (`gateway.daemon.main`) makes one `Timing` and passes it down. No variable sets
it: the promises of docs/security.md and docs/health.md are made with the defaults, and
tests/unit/test_timing.py ties the figures in those documents to them.
"""

from gateway.model.frozen import frozen


@frozen
class Timing:
    """All durations are in seconds."""

    patience: float = 8.0
    """How long a candidate has for its handshake: two tries, since WireGuard repeats after 5 s."""

    trial_limit: float = 2.0
    """How long a handshake may take that is timed, with SERVER_ORDER=latency.

    It takes one round trip, and no usable path takes so long.
    """

    return_after: float = 1800.0
    """How long another candidate is connected before the first one is tried again."""

    rebuild_pause: float = 1.0
    """The least time between two attempts to look up a name or to build the interface."""

    stable_after: float = 10.0
    """How long a connection lasts before the failures that preceded it are forgotten."""

    backoff_first: float = 1.0
    """The wait after the first round of candidates that all failed; it doubles with each round."""

    backoff_last: float = 60.0
    """The longest wait between two rounds: a server that comes back is noticed within a minute."""

    silent_after: float = 16.0
    """How long data may stay unanswered before the server counts as gone.

    WireGuard itself starts a new handshake after 15 s. One second more leaves time for the answer,
    which is all that a server needs that was restarted and has forgotten us.
    """

    doubt_after: float = 3.0
    """How long data may stay unanswered before a probe asks for an answer."""

    handshake_expires: float = 210.0
    """How old a handshake may be in a tunnel with a persistent keepalive.

    A keepalive 120 s after the last handshake starts a new one, and keys expire after 180 s. The
    rest is for the slowest common keepalive and a few lost packets.
    """

    heartbeat: float = 1.0
    """The time between two samples of the tunnel's counters while something moves in it.

    A calm tunnel is sampled every `sample_calm`, and when something has moved in it.
    """

    sample_calm: float = 20.0
    """The same in a calm tunnel; when the kernel is compared, its packets are counted too."""

    eager: float = 0.02
    """The time between two samples of an interface that was just built: handshakes take ms."""

    eager_for: float = 2.0
    """How long after the interface was built `eager` holds; most handshakes have ended by then."""

    settle: float = 0.02
    """How long changes that the kernel reports are collected: one `ip` command makes several."""

    verify_every: float = 4.0
    """The time between two comparisons of the kernel with what was put there; P17 promises 5 s."""

    verify_again: float = 1.0
    """The same after drift, and after a change that the kernel reported: rules often change too."""

    work_limit: float = 8.0
    """How long a look-up or the building of the interface may take; stale health means 10 s."""

    fetch_limit: float = 45.0
    """How long a provider's list may take to arrive: the largest one has 10 MB."""

    fetch_first: float = 5.0
    """The wait after a list could not be fetched; it doubles. It is a request to someone's API."""

    fetch_last: float = 300.0
    """The longest of these waits."""

    login_again: float = 3600.0
    """The wait after a refused login: more would look like an attack on the account."""

    register_first: float = 30.0
    """The least time between two registrations of a key, each with a login; it doubles."""

    register_last: float = 900.0
    """The longest of these times: a server that has forgotten the key is used again after that."""

    fetch_useless: float = 3600.0
    """The wait after a list that had no server for this configuration: it changes in days."""

    names_again: float = 1.0
    """The time between two attempts to write the resolver file, while names do not resolve."""

    probe_every: float = 20.0
    """The time between two probes: with `silent_after`, an idle tunnel turns red within 45 s."""

    probe_moving: float = 5.0
    """The same if data has moved since the last one.

    With the three seconds of a probe, one of pause and the seven of a thorough one, a lost way to
    the server shows within 20 s.
    """

    probe_in_doubt: float = 1.0
    """The same while something stays unanswered."""

    measure_again: float = 600.0
    """The least time between two searches for the largest packet: one costs some 50 packets."""

    read_limit: float = 15.0
    """How long reading the configuration again may take; it takes less than one on small boards."""

    read_again: float = 1.0
    """The time between two readings: requests that come meanwhile share the next one."""

    retry_first: float = 0.25
    """The wait after a shortage kept the kernel from being checked or changed; it doubles."""

    retry_last: float = 4.0
    """The longest of these waits: less than the 5 s in which P17 promises to detect changes."""

    closing_time: float = 5.0
    """How long a shortage may delay the closed rules at the end; Docker kills after 10 s."""

    closing_pause: float = 0.1
    """The time between two of these attempts."""

    bind_again: float = 5.0
    """The time between two attempts to listen on the address of the health server."""


@frozen
class Moment:
    """When something happens: `now` in seconds, on the clock of all times in a state.

    `chance` is a random number in [0, 1) that spreads attempts.
    """

    now: float
    timing: Timing
    chance: float = 0.5
