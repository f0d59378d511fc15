"""All of `ciliate run hubble`, put together."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ciliate.context import Context

from ciliate_hubble import listening
from ciliate_hubble.columns import Flows, Sink
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.encoding.flows import FlowEncoders
from ciliate_hubble.ingest.conversion import Conversion
from ciliate_hubble.ingest.ingest import Ingest
from ciliate_hubble.ingest.join import EndJoin
from ciliate_hubble.ingest.requests import RequestConversion
from ciliate_hubble.losses import Losses
from ciliate_hubble.metrics.serving import serve_metrics
from ciliate_hubble.names import Names
from ciliate_hubble.observer.agent_events import AgentEvents
from ciliate_hubble.observer.namespaces import Namespaces
from ciliate_hubble.observer.rate import Rate
from ciliate_hubble.observer.reading import Kept
from ciliate_hubble.observer.servicer import Observer
from ciliate_hubble.peer.service import peer_servicer
from ciliate_hubble.redaction import Redaction
from ciliate_hubble.ring import Ring
from ciliate_hubble.server import Server
from ciliate_hubble.sources.notices import Notices
from ciliate_hubble.sources.objects import follow_node, pod_source
from ciliate_hubble.sources.tables import follow_tables
from ciliate_hubble.tables import FlowTables, node_name

TIDY = 10.0
"""Seconds between two looks at what nobody names any more."""


class HubbleProcess:
    """Flows of one node: from the data path's records to those who ask."""

    def __init__(self, context: Context) -> None:
        config: HubbleConfig = context.config
        self._context = context
        self._config = config
        self.tables = FlowTables(node_name(context.node.cluster, context.node.name))
        self.ring = Ring(config.event_buffer_capacity)
        self.losses = Losses(config.lost_event_send_interval, lambda: self.ring.seen)
        self._names = Names(context.node.cluster, lambda dependency: self._join.forget(dependency))
        self._join = EndJoin(self.tables.ends, self._names.resolve)
        self._events = AgentEvents(config.agent_event_capacity, self.tables.node_name)
        self._namespaces = Namespaces(self.tables.ends)
        self._rate = Rate(time.monotonic())
        self._requests = RequestConversion(self.tables.ends, self._join, self.tables.l7, Redaction(config))
        conversion = Conversion(self.tables.ends, self._names, self.tables.rules, self._join)
        self._ingest = Ingest(conversion, self._requests, self.ring, self.losses, config)
        for sink in (self._namespaces.take, self._count):
            self.add_sink(sink)
        if (metrics := serve_metrics(context, self.tables, self.losses, self._names.gone)) is not None:
            self.add_sink(metrics.sink)
        encoders = FlowEncoders(self.tables, policies=config.network_policy_correlation_enabled)
        kept = Kept(self.ring, self.tables, self.losses, encoders, config.lost_event_send_interval)
        self._observer = Observer(kept, self._events, self._namespaces, self._rate)
        servicers = [self._observer.servicer(), peer_servicer(listening.nodes(context))]
        self._server = Server(servicers, listening.listeners(context), context.health)

    def add_sink(self, sink: Sink) -> None:
        """Have a function get every flow from now on."""
        self._ingest.sinks.append(sink)

    def start(self) -> None:
        """Start the tasks."""
        context, config = self._context, self._config
        follow_tables(context, self._names, self.tables.rules, Notices(self._names, self._events.add))
        pods = pod_source(context.store, self._names, config.remote_pods)
        if pods is not None:
            context.spawn("pods", pods.run)
        context.spawn("node", partial(follow_node, context.store, context.node.name, self._put_node_labels))
        context.spawn("records", partial(self._ingest.follow_batches, context.batches))
        context.spawn("requests", partial(self._ingest.follow_requests, context.events))
        interval = config.lost_event_send_interval
        context.spawn("losses", partial(self._ingest.tell_losses, context.batches, interval))
        context.spawn("tidy", self._tidy)
        context.spawn("server", self._server.run)

    def _put_node_labels(self, labels: tuple[str, ...]) -> None:
        self.tables.node_labels.put(labels, self.ring.seen)

    def _count(self, flows: Flows) -> None:
        self._rate.add(len(flows), time.monotonic())

    async def _tidy(self) -> None:
        """Forget ends that no flow names any more."""
        ends = self.tables.ends
        while True:
            await asyncio.sleep(TIDY)
            self._namespaces.fold()
            self.tables.l7.forget(self.ring.left)
            if ends.due:
                rows = self.ring.rows()
                ends.collect(rows["source_end"], rows["destination_end"], self._join.named())

    def status(self) -> dict[str, Any]:
        """What is kept of flows, from when to when, and what was lost."""
        ring = self.ring
        oldest, newest = (ring.read(place, ring.seen, 1).flows["time"] for place in (ring.oldest, ring.seen - 1))
        return {
            "flows": ring.kept,
            "capacity": ring.capacity,
            "seen": ring.seen,
            "rate": round(self._rate.per_second(time.monotonic()), 1),
            "oldest": _text(oldest),
            "newest": _text(newest),
            "readers": self._observer.readers,
            "lost": {source.name.lower(): count for source, count in self.losses.totals.items()},
            "malformed_l7_records": self._requests.malformed,
            "ends": len(self.tables.ends),
            "agent_events": len(self._events),
        }


def _text(times: Any) -> str:
    """The one time of an array as RFC 3339; empty for none."""
    return datetime.fromtimestamp(int(times[0]) / 1e9, UTC).isoformat() if len(times) else ""
