"""The last status in the words of Prometheus; imported when it is first asked for."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.policy.report import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATES = ("locked", "resolving", "connecting", "connected", "stopping")


def exposition(status: Status, now: float, *, healthy: bool) -> bytes:
    """Return the text that a scrape gets; `healthy` is what /healthz would say."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status, now, healthy=healthy))
    return generate_latest(registry)


class _Collector:
    """One status as metrics."""

    def __init__(self, status: Status, now: float, *, healthy: bool) -> None:
        self._status = status
        self._now = now
        self._healthy = healthy

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterator[Metric]:
        status = self._status
        yield GaugeMetricFamily(
            "portcullis_healthy", "Whether workloads can use the network (1 or 0).", self._healthy
        )
        state = GaugeMetricFamily(
            "portcullis_state", "The state that the gateway is in (1), and those that not (0).",
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
        yield GaugeMetricFamily(
            "portcullis_limits", "Promises that this machine cannot keep.", len(status.limits)
        )

    def _counters(self) -> Iterator[Metric]:
        status = self._status
        yield CounterMetricFamily(
            "portcullis_received_bytes", "Received by the tunnel's interface.", status.received
        )
        yield CounterMetricFamily(
            "portcullis_sent_bytes", "Sent by the tunnel's interface.", status.sent
        )
        reconnects = CounterMetricFamily(
            "portcullis_reconnects", "Tunnels lost, by reason.", labels=["reason"]
        )
        for reason, times in status.reconnects:
            reconnects.add_metric([reason], times)
        yield reconnects
        yield CounterMetricFamily(
            "portcullis_endpoint_switches", "Changes to another server.", status.switches
        )
        yield CounterMetricFamily(
            "portcullis_drift", "Changes by somebody else that were put back.", status.drift
        )
        refused = CounterMetricFamily(
            "portcullis_refused_packets",
            "Packets refused by the firewall.",
            labels=["family", "direction"],
        )
        for family, direction, packets in status.refused:
            refused.add_metric([family, direction], packets)
        yield refused
