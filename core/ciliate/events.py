"""Events: what happened and is not state. Bounded: a slow reader loses events and is told how many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

E = TypeVar("E")


@dataclass(frozen=True)
class TopicSpec(Generic[E]):
    """A topic's name and the type of its events."""

    name: str
    type: type[E]
    doc: str


@dataclass(frozen=True)
class Delivery(Generic[E]):
    """Events in order, and how many were lost before them."""

    events: list[E]
    lost: int


class Subscription(Generic[E]):
    """A reader's bounded queue. Iterate it asynchronously; `close` when done."""

    def __init__(self, topic: _Topic, capacity: int) -> None:
        self._topic = topic
        self._queue: deque[E] = deque()
        self._capacity = capacity
        self._lost = 0
        self._wake = asyncio.Event()

    def offer(self, event: E) -> None:
        """Queue one event, or count it as lost."""
        if len(self._queue) >= self._capacity:
            self._lost += 1
        else:
            self._queue.append(event)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Delivery[E]]:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                events, lost = list(self._queue), self._lost
                self._queue.clear()
                self._lost = 0
                yield Delivery(events, lost)
        finally:
            self.close()

    def close(self) -> None:
        """Stop receiving."""
        self._topic.readers.discard(self)


class _Topic:
    def __init__(self) -> None:
        self.readers: set[Subscription[Any]] = set()


class Events:
    """The event bus of one process."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def emit(self, topic: TopicSpec[E], event: E) -> None:
        """Hand an event to every reader of the topic; never waits."""
        known = self._topics.get(topic.name)
        if known is not None:
            for reader in known.readers:
                reader.offer(event)

    def subscribe(self, topic: TopicSpec[E], capacity: int = 1024) -> Subscription[E]:
        """Read a topic from now on, keeping at most `capacity` unread events."""
        known = self._topics.setdefault(topic.name, _Topic())
        subscription: Subscription[E] = Subscription(known, capacity)
        known.readers.add(subscription)
        return subscription
