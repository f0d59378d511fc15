"""The data path's events as column batches: one drain of the kernel's ring buffer, many readers in any process.

The process that `events.drain` names reads the kernel's ring and writes what it reads into a ring in shared memory,
from which the other processes of the node read. Both are read every POLL_SECONDS; only a burst wakes the drain: a
wake-up for each record costs a packet's CPU more than its verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ciliate.drain import EventRing
from ciliate.events import Events, Subscription, TopicSpec
from ciliate.shared_ring import RingReader, RingWriter, ring_path

Batch = np.ndarray[Any, np.dtype[np.void]]
_TOPIC: TopicSpec[Batch] = TopicSpec("batches", np.ndarray, "Column batches of the data path's records.")

POLL_SECONDS = 0.02
LOOK_SECONDS = 0.5
"""How often a reader looks whether there is a new ring, and the drain tells what the programs have lost."""


class Batches:
    """Readers of event batches. With no reader the ring is drained all the same, so that it never runs full."""

    def __init__(self, most: int, run_dir: Path | None = None, shared: int = 0) -> None:
        """most: records a batch; run_dir: of the node, for a ring of `shared` records; None: this process alone."""
        self._events = Events(weigh=len)
        self._most = most
        self._run_dir = run_dir
        self._slots = shared
        self._ring: EventRing | None = None
        self._writer: RingWriter | None = None
        self._reader: RingReader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked = 0.0
        self.records = 0

    def subscribe(self, capacity: int = 64) -> Subscription[Batch]:
        """Read batches from now on; `capacity` counts batches, a delivery's `lost` records."""
        subscription = self._events.subscribe(_TOPIC, capacity)
        if self._ring is None and self._timer is None and self._run_dir is not None:
            self._reader = None  # from now on, not from where the last subscriber was
            self._follow()
        return subscription

    def attach(self, ring: EventRing) -> None:
        """Drain a ring from this process's loop, and share what it gives."""
        self.detach()
        self._ring = ring
        if self._run_dir is not None and self._slots:
            self._writer = RingWriter(ring_path(self._run_dir), ring.dtype, self._slots)
        asyncio.get_running_loop().add_reader(ring.fd, self._drain)
        self._poll()

    def lost(self) -> int | None:
        """Records that the programs could not write because the ring was full; None if this process doesn't know."""
        if self._ring is not None:
            return self._ring.lost()
        return None if self._reader is None else self._reader.lost()

    def detach(self) -> None:
        """Stop draining; what is in the ring stays there for the next drain."""
        if self._ring is not None:
            asyncio.get_running_loop().remove_reader(self._ring.fd)
            self._ring = self._writer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def queues(self) -> list[Subscription[Any]]:
        """The subscriptions of this process."""
        return self._events.queues(_TOPIC.name)

    def _poll(self) -> None:
        self._again(self._poll)
        self._drain()
        if self._writer is not None and self._due():
            self._writer.note_lost(self.lost() or 0)

    def _drain(self) -> None:
        if self._ring is None:  # detached since this call was planned
            return
        batch = self._ring.read(self._most)
        if len(batch):
            if self._writer is not None:
                self._writer.write(batch)
            self._hand_out(batch)
        if len(batch) == self._most:
            asyncio.get_running_loop().call_soon(self._drain)

    def _hand_out(self, batch: Batch) -> None:
        self.records += len(batch)
        self._events.emit(_TOPIC, batch)

    def _follow(self) -> None:
        """Read the shared ring while somebody subscribes."""
        self._timer = None
        if not self.queues():
            self._reader = None
            return
        self._again(self._follow)
        if self._due() and (self._reader is None or self._reader.replaced()):
            with suppress(OSError, ValueError):  # there is none yet
                assert self._run_dir is not None
                self._reader = RingReader(ring_path(self._run_dir))
        while self._reader is not None:
            batch, lost = self._reader.read(self._most)
            if lost:
                self._events.lose(_TOPIC.name, lost)
            if len(batch):
                self._hand_out(batch)
            if len(batch) < self._most:
                return

    def _again(self, function: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, function)

    def _due(self) -> bool:
        """True every LOOK_SECONDS, and at first."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS and self._looked:
            return False
        self._looked = now
        return True
