"""What the agent did, as Hubble's agent events: kept encoded, in order, and read like flows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from typing import NamedTuple

from ciliate_hubble.encoding import wire
from ciliate_hubble.observer.span import Span

SENT = 256
"""Events that are sent at once."""


class _Event(NamedTuple):
    time: int
    body: bytes  # of flow.AgentEvent


class AgentEvents:
    """The latest events. A follower that is overtaken goes on with the oldest that there is."""

    def __init__(self, capacity: int, node_name: str) -> None:
        self._events: deque[_Event] = deque(maxlen=capacity)
        self._seen = 0
        self._node_name = wire.text(1000, node_name)
        self._waiting: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, body: bytes) -> None:
        """An event of now: an encoded flow.AgentEvent."""
        self._events.append(_Event(time.time_ns(), body))
        self._seen += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def messages(self, span: Span) -> AsyncIterator[list[bytes]]:
        """GetAgentEventsResponse messages of a request."""
        end = self._seen
        place = self._start(span)
        left = span.most
        while left != 0:
            place = max(place, self._seen - len(self._events))
            stop = self._seen if span.follow else end
            if place < stop:
                events = self._read(place, min(stop, place + SENT))
                place += len(events)
                wanted = [event for event in events if span.since is None or event.time >= span.since]
                in_time = [event for event in wanted if span.until is None or event.time <= span.until][:left]
                yield [self._response(event) for event in in_time]
                left = None if left is None else left - len(in_time)
                left = 0 if span.until is not None and events[-1].time > span.until else left
            elif span.follow:
                await self._wait()
            else:
                return

    def _read(self, place: int, stop: int) -> list[_Event]:
        first = self._seen - len(self._events)
        return list(islice(self._events, place - first, stop - first))

    def _start(self, span: Span) -> int:
        oldest = self._seen - len(self._events)
        if span.since is not None or span.first or (not span.number and not span.follow):
            return oldest
        return max(oldest, self._seen - span.number)

    async def _wait(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _response(self, event: _Event) -> bytes:
        return wire.message(1, event.body) + self._node_name + wire.message(1001, wire.timestamp(event.time))
