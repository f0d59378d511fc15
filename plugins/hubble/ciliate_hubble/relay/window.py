"""Merging by time what several sources send, each in order, within bounds of time and space. Pure: the clock is given.

While all open sources have something, the merge is exact. One that is silent is waited for, but not for ever; how long
depends on whether the end is near:

- patient (a request that ends): a source holds the others for `span` seconds since its last sign; meanwhile they are
  not read further than `most` messages each. The order is exact if no source is silent for longer.
- not patient (a reader that follows): a message waits at most `span` seconds for others' older ones, and not at all
  while some source has `most` messages waiting: nobody is slowed down by somebody else's silence.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Source(Generic[T]):
    queue: deque[tuple[int, int, T]] = field(default_factory=deque)  # time, number, message
    open: bool = True
    time: int = 0  # of its last message
    heard: float = 0.0  # when it last had a message, or was opened


class Window(Generic[T]):
    """Sources are known by numbers that the caller gives."""

    def __init__(self, span: float, most: int, *, patient: bool) -> None:
        self._span = span
        self._most = most
        self._patient = patient
        self._sources: dict[int, _Source[T]] = {}
        self._heads: list[tuple[int, int, int]] = []  # heap of time, number, source: the first of each queue
        self._numbers = count()
        self._arrivals: deque[tuple[float, int]] = deque()  # when, number; some have gone already
        self._gone: set[int] = set()  # numbers that are still in _arrivals
        self._silent: set[int] = set()  # sources that are open and have nothing
        self._full = 0  # sources that have `most`
        self._hold = 0.0  # patient: until when the silent ones are waited for; may be too long
        self._last = 0
        self.late = 0  # messages that came after younger ones had gone

    def open(self, source: int, now: float) -> None:
        """A source will send messages; it may have been closed before."""
        found = self._sources.setdefault(source, _Source())
        found.open, found.heard = True, now
        if not found.queue:
            self._silence(source, now)

    def close(self, source: int) -> None:
        """It will send no more; what it has sent goes its way."""
        found = self._sources[source]
        found.open = False
        self._silent.discard(source)
        if not found.queue:
            del self._sources[source]

    def push(self, source: int, time: int, message: T, now: float) -> None:
        """A message of a source. One without a time (0), or older than the one before it, goes right after that."""
        found = self._sources[source]
        found.time = max(time, found.time)
        number = next(self._numbers)
        if not found.queue:
            heapq.heappush(self._heads, (found.time, number, source))
            self._silent.discard(source)
        found.queue.append((found.time, number, message))
        found.heard = now
        self._full += len(found.queue) == self._most
        if not self._patient:
            self._arrivals.append((now, number))

    def has_room(self, source: int) -> bool:
        """Whether a source should send on."""
        found = self._sources.get(source)
        return found is None or len(found.queue) < self._most

    def pop(self, now: float) -> tuple[int, T] | None:
        """The next message and its source; None if it is to wait."""
        if not self._heads or not self._may_go(now):
            return None
        time, number, source = self._heads[0]
        found = self._sources[source]
        self._full -= len(found.queue) == self._most
        _, _, message = found.queue.popleft()
        if found.queue:
            heapq.heapreplace(self._heads, (found.queue[0][0], found.queue[0][1], source))
        else:
            heapq.heappop(self._heads)
            if found.open:
                found.heard = now
                self._silence(source, now)
            else:
                del self._sources[source]
        self._forget(number)
        self.late += time < self._last
        self._last = max(time, self._last)
        return source, message

    def due(self) -> float | None:
        """When `pop` will give something though nothing comes; None if there is nothing."""
        if not self._heads:
            return None
        return self._held_until() if self._patient else self._arrivals[0][0] + self._span

    @property
    def finished(self) -> bool:
        """Whether all sources are closed and all messages gone."""
        return not self._sources

    def _may_go(self, now: float) -> bool:
        if not self._silent:
            return True
        if self._patient:
            return now >= self._hold or now >= self._held_until()
        return self._full > 0 or self._arrivals[0][0] + self._span <= now

    def _silence(self, source: int, now: float) -> None:
        self._silent.add(source)
        self._hold = max(self._hold, now + self._span)

    def _held_until(self) -> float:
        """Until when the silent ones are waited for, exactly."""
        heard = (self._sources[source].heard for source in self._silent)
        self._hold = max(heard, default=-self._span) + self._span
        return self._hold

    def _forget(self, number: int) -> None:
        if self._patient:
            return
        self._gone.add(number)
        while self._arrivals and self._arrivals[0][1] in self._gone:
            self._gone.discard(self._arrivals.popleft()[1])
