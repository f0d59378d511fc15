"""Recent flows in memory, as rows of FLOW, in the order in which they happened. Readers keep a place of their own.

A flow's sequence number is its place. The ring holds some more rows than its capacity: what a reader that follows has
not yet read when a burst comes; for whoever asks anew there are only as many as the capacity says.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np

from ciliate_hubble.columns import FLOW, RAW, Flows

SPARE = 65_536
"""Rows beyond the capacity: 13 MB, and more than one reading of the shared ring can give."""


class Read(NamedTuple):
    """What a reader finds at its place."""

    flows: Flows  # a view: valid until the next await
    lost: int  # flows that were overwritten before it came to them
    next: int  # its next place


class Ring:
    """Written by ingest alone, in one loop with its readers."""

    def __init__(self, capacity: int, spare: int = SPARE) -> None:
        self.capacity = capacity
        self.seen = 0  # flows ever written: the sequence number of the next
        self._size = capacity + spare
        self._rows = np.zeros(self._size, FLOW)
        self._raw = self._rows.view(RAW)
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def kept(self) -> int:
        """How many flows there are for whoever asks now."""
        return min(self.seen, self.capacity)

    @property
    def oldest(self) -> int:
        """The sequence number of the oldest of them."""
        return self.seen - self.kept

    @property
    def left(self) -> int:
        """The sequence number of the oldest that any reader can still get."""
        return max(0, self.seen - self._size)

    @property
    def waiting(self) -> int:
        """How many readers have read all and wait for more."""
        return len(self._waiting)

    def append(self, flows: Flows) -> None:
        """Add flows, whose sequence numbers follow on; the oldest give way. Readers that wait are woken."""
        self.seen += len(flows)
        rows = flows[-self._size :].view(RAW)
        at = (self.seen - len(rows)) % self._size
        before = min(len(rows), self._size - at)
        self._raw[at : at + before] = rows[:before]
        self._raw[: len(rows) - before] = rows[before:]
        self.wake()

    def wake(self) -> None:
        """Let readers that wait look again."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Until something has been added, or `wake` was called."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def read(self, place: int, end: int, most: int) -> Read:
        """Up to `most` flows from a place on, before `end`."""
        start = max(place, self.left)
        at = start % self._size
        count = max(0, min(most, min(end, self.seen) - start, self._size - at))
        return Read(self._rows[at : at + count], start - place, start + count)

    def read_back(self, place: int, start: int, most: int) -> Flows:
        """Up to `most` flows before a place, not before `start`; in their order. A view, as `read` gives."""
        end = (place - 1) % self._size + 1
        count = max(0, min(most, place - max(start, self.left), end))
        return self._rows[end - count : end]

    def rows(self) -> Flows:
        """All rows that there are, in no order."""
        return self._rows[: min(self.seen, self._size)]
