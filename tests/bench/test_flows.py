"""Flows a second: what ingest makes of records, with names and metrics, and what a reader that follows gets of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ciliate.model.base import pack_address
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.ends import Workload
from ciliate_hubble.ingest.conversion import CHUNK, Conversion
from ciliate_hubble.ingest.ingest import Ingest
from ciliate_hubble.ingest.join import EndJoin
from ciliate_hubble.ingest.requests import RequestConversion
from ciliate_hubble.losses import Losses
from ciliate_hubble.metrics.collector import FlowMetrics
from ciliate_hubble.metrics.options import parse_metrics
from ciliate_hubble.names import Names, PodName
from ciliate_hubble.observer.namespaces import Namespaces
from ciliate_hubble.redaction import Redaction
from ciliate_hubble.ring import Ring
from ciliate_hubble.tables import FlowTables
from ciliate_node.peers.ring import RingReader, RingWriter

from tests.bench import flows, harness
from tests.bench.flows import Records

BATCH = 8192
BATCHES = 8
SHARED = 32_768
ROUNDS = 15
INGEST_BUDGET = 1_000_000
"""Records a second on one CPU, of DESIGN section 11; an absolute figure gates at half of it."""
METRICS = ["drop", "flow", "icmp", "port-distribution", "tcp"]


class Hubble:
    """All that stands between the ring that the drain shares and the ring of flows."""

    def __init__(self, metrics: list[str]) -> None:
        config = HubbleConfig()
        self.tables = FlowTables("node1")
        self.names = Names("default", lambda dependency: self.join.forget(dependency))
        self.join = EndJoin(self.tables.ends, self.names.resolve)
        self.ring = Ring(config.event_buffer_capacity)
        losses = Losses(1.0, lambda: self.ring.seen)
        requests = RequestConversion(self.tables.ends, self.join, self.tables.l7, Redaction(config))
        conversion = Conversion(self.tables.ends, self.names, self.tables.rules, self.join)
        self.ingest = Ingest(conversion, requests, self.ring, losses, config)
        self.ingest.sinks.append(Namespaces(self.tables.ends).take)
        if metrics:
            self.ingest.sinks.append(FlowMetrics(parse_metrics(metrics), self.tables, lambda: losses.totals).sink)
        self._learn()

    def _learn(self) -> None:
        for endpoint in flows.endpoints():
            self.names.put_endpoint(endpoint)
        for policy in flows.endpoint_policies():
            self.names.put_policy(policy)
        for identity in flows.identities():
            self.names.put_identity(identity)
        for rule_set in flows.rule_sets():
            self.tables.rules.put(rule_set)
        for number in range(flows.REMOTE):
            name = PodName((f"ns{number % 20}", f"far-{number}"))
            self.names.put_pod(name, [pack_address(flows.remote_address(number))], (Workload("Deployment", "far"),))

    def take(self, batch: Records) -> None:
        """What follow_batches does with one."""
        for start in range(0, len(batch), CHUNK):
            self.ingest.take(batch[start : start + CHUNK], 10**18)


def processor_time(action: Callable[[], Any]) -> float:
    """Seconds of this process's processors that an action takes."""
    began = time.process_time()
    action()
    return time.process_time() - began


@pytest.mark.parametrize("metrics", [[], METRICS], ids=["names", "names and metrics"])
def test_ingest(metrics: list[str], tmp_path: Path) -> None:
    """Read from the shared ring, made into flows, joined, kept, counted; against a copy of the same batch by numpy."""
    records = flows.records(BATCH * BATCHES)
    writer = RingWriter(tmp_path / "events.ring", records.dtype, SHARED)
    reader = RingReader(tmp_path / "events.ring")
    hubble = Hubble(metrics)
    hubble.take(records)  # every end has been seen once
    ours, peers = [], []
    for _ in range(ROUNDS):
        spent = copied = 0.0
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            writer.write(batch)
            copied += processor_time(lambda batch=batch: batch.copy())  # type: ignore[misc]
            spent += processor_time(lambda: hubble.take(reader.read(BATCH).records))
        ours.append(len(records) / spent)
        peers.append(len(records) / copied)
    report = harness.new_report(f"flows-{'metrics' if metrics else 'names'}")
    rate = harness.median_interval(np.array(ours))
    report.figures["records a second"] = rate
    report.figures["copies by numpy a second"] = harness.median_interval(np.array(peers))
    report.figures["microseconds a record"] = harness.median_interval(1e6 / np.array(ours))
    made = hubble.ring.seen / (len(records) * (ROUNDS + 1))
    report.notes.append(
        f"{made:.2f} flows a record; {len(hubble.tables.ends)} ends; metrics: {', '.join(metrics) or 'none'}"
    )
    report.save()
    print(f"ingest: {rate.median:,.0f} records a second on one CPU ({report.notes[0]})")
    assert rate.high >= INGEST_BUDGET / 2
