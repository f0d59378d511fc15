"""Events: what happened and is not state. Bounded: a slow reader loses events and is told how many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
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

    def __init__(self, topic: _Topic, capacity: int, wake: asyncio.Event | None = None) -> None:
        self._topic = topic
        self._queue: deque[E] = deque()
        self._capacity = capacity
        self._lost = 0
        self._wake = asyncio.Event() if wake is None else wake

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, event: E) -> None:
        """Queue one event, or count it as lost."""
        if len(self._queue) >= self._capacity:
            self._lost += self._topic.weigh(event)
        else:
            self._queue.append(event)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Delivery[E]]:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if (delivery := self.take()) is not None:
                    yield delivery
        finally:
            self.close()

    def lose(self, count: int) -> None:
        """Count events that were lost on their way here."""
        self._lost += count
        self._wake.set()

    def take(self) -> Delivery[E] | None:
        """What is queued and was lost since the last time; None if nothing."""
        if not self._queue and not self._lost:
            return None
        delivery = Delivery(list(self._queue), self._lost)
        self._queue.clear()
        self._lost = 0
        return delivery

    def close(self) -> None:
        """Stop receiving."""
        self._topic.readers.discard(self)


class _Topic:
    def __init__(self, weigh: Callable[[Any], int]) -> None:
        self.readers: set[Subscription[Any]] = set()
        self.weigh = weigh


class Events:
    """The event bus of one process."""

    def __init__(self, weigh: Callable[[Any], int] = lambda _: 1) -> None:
        """weigh: how many losses it is when an event is lost."""
        self._weigh = weigh
        self._topics: dict[str, _Topic] = {}
        self.declared: frozenset[str] = frozenset()  # topics of this process's plugins
        self.absent: Callable[[TopicSpec[Any]], None] = lambda _: None  # called for a topic of other processes

    def emit(self, topic: TopicSpec[E], event: E) -> None:
        """Hand an event to every reader of the topic; never waits."""
        known = self._topics.get(topic.name)
        if known is not None:
            for reader in known.readers:
                reader.offer(event)

    def lose(self, topic: str, count: int) -> None:
        """Tell every reader of a topic that events were lost on their way to this process."""
        for reader in self.queues(topic):
            reader.lose(count)

    def queues(self, topic: str) -> list[Subscription[Any]]:
        """The readers of a topic."""
        return list(self._topics[topic].readers) if topic in self._topics else []

    def topics(self) -> list[str]:
        """Topics that have or had readers."""
        return list(self._topics)

    def subscribe(
        self, topic: TopicSpec[E], capacity: int = 1024, wake: asyncio.Event | None = None
    ) -> Subscription[E]:
        """Read a topic from now on, keeping at most `capacity` unread events; `wake` may be shared by several."""
        known = self._topics.setdefault(topic.name, _Topic(self._weigh))
        subscription: Subscription[E] = Subscription(known, capacity, wake)
        known.readers.add(subscription)
        if topic.name not in self.declared:
            self.absent(topic)
        return subscription
