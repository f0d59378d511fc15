"""Losses, told apart from flows: counted where they happen, gathered by source, and sent as Hubble's LostEvents.

Messages of one source are at least an interval apart; each stands between the flows where the losses were noticed.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

KEPT = 1024
"""Messages that are remembered for later readers."""


class LossSource(enum.IntEnum):
    """flow.LostEventSource: where."""

    PERF_EVENT_RING_BUFFER = 1  # the kernel's ring had no room
    OBSERVER_EVENTS_QUEUE = 2  # between the kernel's ring and the flows: the shared ring, this process's queue
    HUBBLE_RING_BUFFER = 3  # a reader was too slow for the ring of flows


class Loss(NamedTuple):
    """One message. Times are nanoseconds since the epoch."""

    source: LossSource
    events: int
    first: int
    last: int
    place: int  # sequence number of the first flow that came after
    number: int  # of the message


class Gathering:
    """Losses of one source that have not been told yet."""

    def __init__(self, interval: float) -> None:
        self._interval = int(interval * 1e9)
        self._count = self._first = self._last = self._told = 0

    def add(self, count: int, now: int) -> None:
        """Something was lost."""
        if not self._count:
            self._first = now
        self._count, self._last = self._count + count, now

    def due(self, now: int, *, at_once: bool = False) -> tuple[int, int, int] | None:
        """Count, first and last time, if there is something and the last message is an interval ago (or `at_once`)."""
        if not self._count or (abs(now - self._told) < self._interval and not at_once):
            return None
        told = self._count, self._first, self._last
        self._count, self._told = 0, now
        return told

    @property
    def pending(self) -> bool:
        """Whether something is yet to be told."""
        return bool(self._count)


class Losses:
    """Of a node's ingest. place: gives the sequence number of the next flow."""

    def __init__(self, interval: float, place: Callable[[], int]) -> None:
        self.totals = dict.fromkeys(LossSource, 0)
        self.told = 0  # messages so far
        self._gatherings = {source: Gathering(interval) for source in LossSource}
        self._place = place
        self._kept: deque[Loss] = deque(maxlen=KEPT)

    def add(self, source: LossSource, count: int, now: int) -> None:
        """Count losses. Told by `tell`."""
        if count > 0:
            self.totals[source] += count
            self._gatherings[source].add(count, now)

    def count(self, source: LossSource, events: int) -> None:
        """Count what a reader has lost; it is told by itself."""
        self.totals[source] += events

    def tell(self, now: int) -> bool:
        """Make the messages that are due; whether there is a new one."""
        before = self.told
        for source, gathering in self._gatherings.items():
            if (due := gathering.due(now)) is not None:
                self._kept.append(Loss(source, *due, self._place(), self.told))
                self.told += 1
        return self.told > before

    @property
    def pending(self) -> bool:
        """Whether something is yet to be told."""
        return any(gathering.pending for gathering in self._gatherings.values())

    def next(self, number: int) -> Loss | None:
        """The first message from a number on that is remembered."""
        first = self.told - len(self._kept)
        place = max(number - first, 0)
        return self._kept[place] if place < len(self._kept) else None

    def after(self, place: int) -> int:
        """The number of the first message that stands after a flow; of the next one, if there is none."""
        return next((loss.number for loss in self._kept if loss.place > place), self.told)
