"""The last status as Prometheus metrics; imported when it is first requested."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from gateway import __version__
from gateway.policy.history import History
from gateway.policy.limits import LimitCode
from gateway.policy.reload import Outcome
from gateway.policy.report import Status
from gateway.policy.reports import ListReport
from gateway.policy.states import Reason, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ALL_STATES: tuple[type[State], ...] = get_args(State)

STATES = tuple(kind.__name__.lower() for kind in ALL_STATES)


def exposition(status: Status, history: History, now: float, *, healthy: bool) -> bytes:
    """Return the text for a scrape; `healthy` is the value that /healthz has."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status, history, now, healthy=healthy))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Collector:
    """One status and what came before it as metrics."""

    def __init__(self, status: Status, history: History, now: float, *, healthy: bool) -> None:
        self._status = status
        self._history = history
        self._now = now
        self._healthy = healthy

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from self._facts()
        yield from self._gauges()
        yield from self._counters()
        yield from self._past()

    def _facts(self) -> Iterator[Metric]:
        status = self._status
        yield InfoMetricFamily("portcullis_build", "The version.", {"version": __version__})
        backend = {"firewall": status.firewall, "wireguard": status.tunnel}
        yield InfoMetricFamily("portcullis_backend", "What carries rules and tunnel.", backend)
        why = GaugeMetricFamily(
            "portcullis_reason", "Why traffic passes or not (1), and the others (0).",
            labels=["reason"],
        )  # fmt: skip
        for reason in Reason:
            why.add_metric([reason], status.reason == reason)
        yield why
        if status.verified_age is not None:
            yield GaugeMetricFamily(
                "portcullis_verified_age_seconds",
                "Time since the kernel was last found as wanted.",
                status.verified_age + self._now - status.at,
            )

    def _gauges(self) -> Iterator[Metric]:
        status = self._status
        yield GaugeMetricFamily(
            "portcullis_healthy", "Whether workloads can use the network (1 or 0).", self._healthy
        )
        state = GaugeMetricFamily(
            "portcullis_state", "The state that the gateway is in (1), and the others (0).",
            labels=["state"],
        )  # fmt: skip
        for name in STATES:
            state.add_metric([name], status.state == name)
        yield state
        yield GaugeMetricFamily(
            "portcullis_state_age_seconds", "Time in this state.", self._now - status.since
        )
        if status.handshake_age is not None:
            yield GaugeMetricFamily(
                "portcullis_handshake_age_seconds",
                "Time since the last handshake was seen.",
                status.handshake_age + self._now - status.at,
            )
        sizes = {
            "portcullis_mtu_bytes": ("The largest packet of the tunnel's interface.", status.mtu),
            "portcullis_path_mtu_bytes": ("The largest that arrives.", status.path_mtu),
        }
        for name, (text, size) in sizes.items():
            if size is not None:
                yield GaugeMetricFamily(name, text, size)
        if status.resolver:
            yield GaugeMetricFamily(
                "portcullis_resolver_up",
                "Whether the gateway's own resolver answers (1 or 0).",
                status.resolver.answers,
            )
            yield from _of_lists(status.resolver.lists)
        yield from _of_services(status)
        yield GaugeMetricFamily(
            "portcullis_limits", "How many limits this host has.", len(status.limits)
        )
        limits = GaugeMetricFamily(
            "portcullis_limit", "Whether this host has the limit (1 or 0).", labels=["code"]
        )
        found = {limit.code for limit in status.limits}
        for code in LimitCode:
            limits.add_metric([code], code in found)
        yield limits

    def _counters(self) -> Iterator[Metric]:
        status = self._status
        yield CounterMetricFamily(
            "portcullis_received_bytes", "Received by the tunnel's interface.", status.received
        )
        yield CounterMetricFamily(
            "portcullis_sent_bytes", "Sent by the tunnel's interface.", status.sent
        )
        if status.resolver:
            yield CounterMetricFamily(
                "portcullis_resolver_starts",
                "Processes of the gateway's own resolver.",
                status.resolver.starts,
            )
            yield GaugeMetricFamily(
                "portcullis_resolver_blocked_names",
                "Names that the gateway's own resolver blocks.",
                status.resolver.blocks,
            )
            questions = CounterMetricFamily(
                "portcullis_resolver_questions",
                "Questions to the gateway's own resolver since its last start, by the answer.",
                labels=["answer"],
            )
            for answer, number in status.resolver.questions:
                questions.add_metric([answer], number)
            yield questions
        reconnects = CounterMetricFamily(
            "portcullis_reconnects", "Tunnels lost, by reason code.", labels=["reason"]
        )
        # From the start on, one line each: Prometheus sees no increase in one that begins with 1.
        lost = dict(status.reconnects)
        for reason in Reason:
            reconnects.add_metric([reason], lost.get(reason, 0))
        yield reconnects
        yield CounterMetricFamily(
            "portcullis_endpoint_switches", "Changes to another server.", status.switches
        )
        yield CounterMetricFamily(
            "portcullis_drift", "Changes by other programs that were reverted.", status.drift
        )
        reloads = CounterMetricFamily(
            "portcullis_reloads", "Readings of the configuration, by outcome.", labels=["outcome"]
        )
        counted = dict(status.reloads)
        for outcome in Outcome:
            reloads.add_metric([outcome], counted.get(outcome, 0))
        yield reloads
        refused = CounterMetricFamily(
            "portcullis_refused_packets",
            "Packets refused by the firewall.",
            labels=["family", "direction"],
        )
        for family, direction, packets in status.refused:
            refused.add_metric([family, direction], packets)
        yield refused

    def _past(self) -> Iterator[Metric]:
        counted = dict(self._history.counts)
        transitions = CounterMetricFamily(
            "portcullis_transitions",
            "Changes of the state, of health or of its reason, by the new reason.",
            labels=["reason"],
        )
        for reason in Reason:
            transitions.add_metric([reason], counted.get(reason, 0))
        yield transitions
        yield CounterMetricFamily(
            "portcullis_unhealthy_seconds",
            "Time in which workloads could not use the network.",
            self._history.red_seconds(self._now),
        )


def _of_services(status: Status) -> Iterator[Metric]:
    """Yield what there is of forwarded ports and of optional services."""
    if status.leases:
        ports = GaugeMetricFamily(
            "portcullis_forwarded_port_info", "A port that the server forwards.", labels=["port"]
        )
        for port in dict.fromkeys(str(lease.port) for lease in status.leases):
            ports.add_metric([port], 1)
        yield ports
    if not status.services:
        return
    up = GaugeMetricFamily(
        "portcullis_service_up", "Whether an optional service works (1 or 0).", labels=["service"]
    )
    starts = CounterMetricFamily(
        "portcullis_service_starts", "Processes of an optional service.", labels=["service"]
    )
    for it in status.services:
        up.add_metric([it.name], it.is_running)
        starts.add_metric([it.name], it.starts)
    yield from (up, starts)


def _of_lists(lists: tuple[ListReport, ...]) -> Iterator[Metric]:
    """Yield what there is of lists of blocked names that are fetched."""
    if not lists:
        return
    names = GaugeMetricFamily(
        "portcullis_resolver_list_names", "Names of a list that is fetched.", labels=["url"]
    )
    ages = GaugeMetricFamily(
        "portcullis_resolver_list_age_seconds", "Time since it was fetched.", labels=["url"]
    )
    for it in {it.url: it for it in lists}.values():  # no series twice
        names.add_metric([it.url], it.names)
        if it.age is not None:
            ages.add_metric([it.url], it.age)
    yield from (names, ages)
