"""The data path's events as column batches: one drain of the kernel's ring buffer, many readers.

The process that `events.drain` names reads the ring, and shares what it reads with the others (`share`, `absent`). It
reads it every POLL_SECONDS, and is woken only by a burst: a wake-up for each record costs a packet's CPU more than its
verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from ciliate.drain import EventRing
from ciliate.events import Events, Subscription, TopicSpec

Batch = np.ndarray[Any, np.dtype[np.void]]
_TOPIC: TopicSpec[Batch] = TopicSpec("batches", np.ndarray, "Column batches of the data path's records.")

POLL_SECONDS = 0.02


class Batches:
    """Readers of event batches. With no reader the ring is drained all the same, so that it never runs full."""

    def __init__(self, most: int) -> None:
        self._events = Events(weigh=len)
        self._most = most
        self._ring: EventRing | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._share: Callable[[Batch], None] = lambda _: None
        self.records = 0
        self.share: Callable[[EventRing], Callable[[Batch], None]] | None = None  # makes what shares with others
        self.absent: Callable[[], None] = lambda: None  # called when somebody subscribes and this process doesn't drain
        self.lost_elsewhere: Callable[[], int | None] = lambda: None  # as the draining process last said

    def subscribe(self, capacity: int = 64) -> Subscription[Batch]:
        """Read batches from now on; `capacity` counts batches, a delivery's `lost` records."""
        subscription = self._events.subscribe(_TOPIC, capacity)
        if self._ring is None:
            self.absent()
        return subscription

    @property
    def draining(self) -> bool:
        """Whether this process reads the kernel's ring."""
        return self._ring is not None

    def queues(self) -> list[Subscription[Any]]:
        """The subscriptions of this process."""
        return self._events.queues(_TOPIC.name)

    def hand_out(self, batch: Batch) -> None:
        """Give a batch to every reader."""
        self.records += len(batch)
        self._events.emit(_TOPIC, batch)

    def lose(self, count: int) -> None:
        """Tell every reader of records that were lost on their way here."""
        self._events.lose(_TOPIC.name, count)

    def attach(self, ring: EventRing) -> None:
        """Drain a ring from this process's loop."""
        self.detach()
        self._ring = ring
        if self.share is not None:
            self._share = self.share(ring)
        asyncio.get_running_loop().add_reader(ring.fd, self._drain)
        self._poll()

    def lost(self) -> int | None:
        """Records that the programs could not write because the ring was full; None if this process doesn't know."""
        return self.lost_elsewhere() if self._ring is None else self._ring.lost()

    def detach(self) -> None:
        """Stop draining; what is in the ring stays there for the next drain."""
        if self._ring is not None:
            asyncio.get_running_loop().remove_reader(self._ring.fd)
            self._ring = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)
        self._drain()

    def _drain(self) -> None:
        if self._ring is None:  # detached since this call was planned
            return
        batch = self._ring.read(self._most)
        if len(batch):
            self._share(batch)
            self.hand_out(batch)
        if len(batch) == self._most:
            asyncio.get_running_loop().call_soon(self._drain)
