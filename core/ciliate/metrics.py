"""Prometheus metrics of one process: a registry, what the core itself counts, and how it is served."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from ciliate.config import ConfigError


class Metrics:
    """A registry that plugins add to; names are Cilium's where the meaning is the same."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.task_failures = self.counter(
            "ciliate_task_failures_total", "Failures of plugins' tasks.", "plugin", "task"
        )
        self.loop_lag = self.histogram(
            "ciliate_loop_lag_seconds",
            "How late the event loop ran a timer.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
        )

    def counter(self, name: str, doc: str, *labels: str) -> Counter:
        """A counter in this registry."""
        return Counter(name, doc, labels, registry=self.registry)

    def gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        """A gauge in this registry."""
        return Gauge(name, doc, labels, registry=self.registry)

    def histogram(self, name: str, doc: str, *labels: str, buckets: tuple[float, ...] | None = None) -> Histogram:
        """A histogram in this registry."""
        if buckets is None:
            return Histogram(name, doc, labels, registry=self.registry)
        return Histogram(name, doc, labels, registry=self.registry, buckets=buckets)

    def exposition(self) -> str:
        """All metrics in Prometheus's text form."""
        return generate_latest(self.registry).decode()

    def serve(self, listen: str) -> None:
        """Serve them over HTTP at host:port, from a thread of its own."""
        host, separator, port = listen.rpartition(":")
        if not separator or not port.isdigit():
            raise ConfigError(f"metrics.listen: {listen!r} must be host:port")
        start_http_server(int(port), host.strip("[]") or "0.0.0.0", registry=self.registry)
