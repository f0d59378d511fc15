"""The tasks that make flows: of the data path's batches, of L7 records; and what is to be done now and then."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import structlog
from ciliate.batches import Batches
from ciliate.events import Events
from ciliate.model.event import EVENT
from ciliate.model.l7 import L7_RECORDS
from numpy.typing import NDArray

from ciliate_hubble.columns import Flows, Sink
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.ingest.clock import WallClock
from ciliate_hubble.ingest.conversion import CHUNK, Conversion
from ciliate_hubble.ingest.requests import RequestConversion
from ciliate_hubble.losses import Losses, LossSource
from ciliate_hubble.ring import Ring

log = structlog.get_logger("hubble")

BATCH = 8192
"""Records of a batch at most, as the core's `events.batch` has it by default."""
L7_QUEUE = 4096
WAKE = 4096
"""Flows after which readers are woken, if not before."""


class Ingest:
    """The writer of the ring. sinks: get every flow, after the ring has it."""

    def __init__(
        self, conversion: Conversion, requests: RequestConversion, ring: Ring, losses: Losses, config: HubbleConfig
    ) -> None:
        self.sinks: list[Sink] = []
        self._conversion = conversion
        self._requests = requests
        self._ring = ring
        self._losses = losses
        self._capacity = config.event_queue_size // BATCH
        self._kernel: int | None = None  # what the kernel's ring had lost when it was last asked
        self._unwoken = 0

    async def follow_batches(self, batches: Batches) -> None:
        """Make flows of records, for ever."""
        wall = WallClock()
        async for delivery in batches.subscribe(self._capacity):
            self._losses.add(LossSource.OBSERVER_EVENTS_QUEUE, delivery.lost, time.time_ns())
            clock = wall.offset()
            for batch in map(as_events, delivery.events):
                for start in range(0, len(batch), CHUNK):
                    self.take(batch[start : start + CHUNK], clock)
                    await asyncio.sleep(0)
            self._wake()

    async def follow_requests(self, events: Events) -> None:
        """Make flows of L7 records, for ever."""
        async for delivery in events.subscribe(L7_RECORDS, L7_QUEUE):
            self._losses.add(LossSource.OBSERVER_EVENTS_QUEUE, delivery.lost, time.time_ns())
            for start in range(0, len(delivery.events), CHUNK // 8):
                self._add(self._requests.flows(delivery.events[start : start + CHUNK // 8], self._ring.seen))
                await asyncio.sleep(0)
            self._requests.forget(self._ring.left)
            self._wake()

    def take(self, records: NDArray[Any], clock: int) -> None:
        """Make flows of at most CHUNK records. clock: wall time less CLOCK_MONOTONIC, ns."""
        self._add(self._conversion.flows(records, clock, self._ring.seen))

    def count_kernel_losses(self, lost: int | None) -> None:
        """What the kernel's ring has lost since it was made; None: nobody knows yet."""
        if lost is None:
            return
        if self._kernel is not None and lost > self._kernel:
            self._losses.add(LossSource.PERF_EVENT_RING_BUFFER, lost - self._kernel, time.time_ns())
        self._kernel = lost

    async def tell_losses(self, batches: Batches, interval: float) -> None:
        """Make messages of losses when they are due, for ever."""
        while True:
            self.count_kernel_losses(batches.lost())
            if self._losses.tell(time.time_ns()):
                log.warning(
                    "events were lost", **{source.name.lower(): n for source, n in self._losses.totals.items() if n}
                )
                self._ring.wake()
            await asyncio.sleep(min(interval, 0.25))

    def _add(self, flows: Flows) -> None:
        self._ring.append(flows)
        for sink in self.sinks:
            sink(flows)
        self._unwoken += len(flows)
        if self._unwoken >= WAKE:
            self._wake()

    def _wake(self) -> None:
        self._unwoken = 0
        self._ring.wake()


def as_events(batch: NDArray[Any]) -> NDArray[Any]:
    """A batch as EVENT. The drain may be of another version, with other fields: those that both know count."""
    if batch.dtype == EVENT:
        return batch
    events = np.zeros(len(batch), EVENT)
    for name in set(EVENT.names or ()) & set(batch.dtype.names or ()):
        events[name] = batch[name]
    return events
