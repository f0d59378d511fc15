"""Prometheus metrics, under the names that Cilium's dashboards use where the meaning is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ciliate.metrics import Metrics
from ciliate.model.policy import Direction
from ciliate.model.reasons import reason_text
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ciliate_cni.conntrack import Collected

PacketCounts = Callable[[], list[tuple[int, int, int, int]]]
"""(reason, direction, packets, bytes) of every counter that is not zero."""

PointRows = Callable[[], list[dict[str, Any]]]
"""As `Points.rows`."""


class CniMetrics:
    """What the plugin counts itself."""

    def __init__(
        self, metrics: Metrics, endpoints: Callable[[], dict[str, int]], packets: PacketCounts, points: PointRows
    ) -> None:
        self._calls = metrics.counter("ciliate_cni_calls_total", "CNI calls.", "verb", "outcome")
        self._seconds = metrics.histogram(
            "ciliate_cni_call_duration_seconds",
            "Time of CNI calls in the agent.",
            "verb",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0),
        )
        self._runs = metrics.counter(
            "cilium_datapath_conntrack_gc_runs_total", "Collections of the conntrack tables.", "status"
        )
        self._entries = metrics.gauge(
            "cilium_datapath_conntrack_gc_entries", "Conntrack entries at the last collection.", "table", "status"
        )
        self._duration = metrics.gauge("cilium_datapath_conntrack_gc_duration_seconds", "Time of the last collection.")
        metrics.registry.register(_Counts(endpoints, packets))
        metrics.registry.register(_PointCounts(points))

    def call(self, verb: str, outcome: str, seconds: float) -> None:
        """Count one CNI call."""
        self._calls.labels(verb, outcome).inc()
        self._seconds.labels(verb).observe(seconds)

    def collected(self, done: Collected) -> None:
        """Count one collection of the conntrack tables."""
        self._runs.labels("completed").inc()
        self._duration.set(done.seconds)
        for table, count in done.alive.items():
            self._entries.labels(table, "alive").set(count)
            self._entries.labels(table, "deleted").set(done.deleted[table])


class _Counts(Collector):
    """Numbers that are elsewhere and read when asked for."""

    def __init__(self, endpoints: Callable[[], dict[str, int]], packets: PacketCounts) -> None:
        self._endpoints = endpoints
        self._packets = packets

    def describe(self) -> list[Metric]:
        """Nothing: the maps need not be there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Endpoints by state, packets and bytes by reason and direction."""
        states = self._endpoints()
        total = GaugeMetricFamily("cilium_endpoint", "Endpoints of this node.")
        total.add_metric([], sum(states.values()))
        yield total
        by_state = GaugeMetricFamily("cilium_endpoint_state", "Endpoints by state.", labels=["endpoint_state"])
        for state, count in states.items():
            by_state.add_metric([state], count)
        yield by_state
        counts = self._packets()
        for what, place in (("count", 2), ("bytes", 3)):
            dropped = CounterMetricFamily(
                f"cilium_drop_{what}_total", f"Dropped, {what}.", labels=["reason", "direction"]
            )
            forwarded = CounterMetricFamily(f"cilium_forward_{what}_total", f"Forwarded, {what}.", labels=["direction"])
            for row in counts:
                direction = direction_name(row[1])
                if row[0]:
                    dropped.add_metric([reason_text(row[0]), direction], row[place])
                else:
                    forwarded.add_metric([direction], row[place])
            yield dropped
            yield forwarded


class _PointCounts(Collector):
    """What plugins' programs did at the points of a packet's path."""

    def __init__(self, rows: PointRows) -> None:
        self._rows = rows

    def describe(self) -> list[Metric]:
        """Nothing: the maps need not be there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Counts by point, plugin and program; times of one packet in 1,024."""
        rows = self._rows()
        for what, doc, unit in (
            ("packets", "Packets that a plugin's program saw.", 1),
            ("drops", "Packets that it dropped.", 1),
            ("invalid", "Its answers that are none, taken for CONTINUE.", 1),
            ("missed", "Packets for which its slot was empty.", 1),
            ("samples", "Packets of which the time was taken.", 1),
            ("time", "Seconds that these took.", 1e9),
        ):
            name = "sampled_seconds" if what == "time" else what
            family = CounterMetricFamily(f"ciliate_point_{name}_total", doc, labels=["point", "plugin", "program"])
            for row in rows:
                family.add_metric([row["point"], row["plugin"], row["program"]], row[what] / unit)
            yield family


def direction_name(direction: int) -> str:
    """As Cilium's metrics have it."""
    return Direction(direction).name


def packet_counts(items: tuple[Any, Any]) -> list[tuple[int, int, int, int]]:
    """The counters of the map `packets` that are not zero, summed over CPUs."""
    indexes, values = items
    packets, size = values["packets"].sum(axis=1), values["bytes"].sum(axis=1)
    return [(int(i) >> 1, int(i) & 1, int(p), int(b)) for i, p, b in zip(indexes, packets, size, strict=True) if p]
