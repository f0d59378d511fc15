"""What is counted of the relay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ciliate.metrics import Metrics

from ciliate_hubble.relay.pool import Pool


class Counted(Protocol):
    """What a request counts."""

    passed: int

    @property
    def late(self) -> int:
        """Messages out of their order."""


class RelayMetrics:
    """Gauges of connections, counters of what passed."""

    def __init__(self, metrics: Metrics, pool: Pool) -> None:
        states = metrics.gauge(
            "hubble_relay_pool_peer_connection_status", "Connections to nodes by their status.", "status"
        )
        states.labels("READY").set_function(lambda: len(pool.connected))
        states.labels("TRANSIENT_FAILURE").set_function(lambda: len(pool.unavailable))
        self._readers = metrics.gauge("ciliate_relay_readers", "Requests for flows under way.")
        self._messages = metrics.counter("ciliate_relay_messages_total", "Flows and losses of nodes passed on.")
        self._late = metrics.counter(
            "ciliate_relay_late_messages_total", "Of these, those that came after younger ones had gone."
        )

    @contextmanager
    def reading(self, request: Counted) -> Iterator[None]:
        """Count a request for the time of a block."""
        self._readers.inc()
        try:
            yield
        finally:
            self._readers.dec()
            self._messages.inc(request.passed)
            self._late.inc(request.late)
