"""The route by which other processes follow tables and topics of this one: one stream a peer, commits kept whole.

A peer that reads slowly holds up nobody: what it has not taken is merged by key, events over the capacity are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from ciliate.api.routes import Request
from ciliate.events import Events, Subscription, TopicSpec
from ciliate.tables.file import encode_key, encode_row
from ciliate.tables.hub import Tables
from ciliate.tables.table import Follower, Table

from ciliate_node.peers.mirror import TableDelta

HEARTBEAT = 5.0
"""Seconds without news after which an empty message says that this process lives."""
PART = 4096
"""Rows a message at most; a larger group goes in several and is applied when its last has come."""


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one step of the stream carries; all of it happened at once."""

    tables: list[TableDelta] = []
    events: list[tuple[str, list[bytes], int]] = []  # topic, events, lost before them
    more: bool = False  # the group goes on in the next message


class Following:
    """One peer's stream."""

    def __init__(self, tables: Tables, events: Events, names: list[str], topics: list[str], capacity: int) -> None:
        self._wake = asyncio.Event()
        self._events = events
        self._tables: list[tuple[Table[Any], Follower[Any]]] = []
        self._told: dict[str, tuple[int, int, bool, bool]] = {}
        for table in tables.written(names):
            follower: Follower[Any] = Follower(self._wake, dict(table.rows))
            table.followers.add(follower)
            self._tables.append((table, follower))
        self._subscriptions: list[tuple[str, Subscription[Any]]] = [
            (name, events.subscribe(TopicSpec(name, object, ""), capacity, self._wake))
            for name in topics
            if name in events.declared
        ]

    async def messages(self) -> AsyncIterator[Message]:
        """The whole tables, then what changes, without end."""
        try:
            while True:
                self._wake.clear()
                for message in self._take():
                    yield message
                    await asyncio.sleep(0)  # the rows of a large table are encoded a part at a time
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await self._wake.wait()
                except TimeoutError:
                    yield Message()
        finally:
            for table, follower in self._tables:
                table.followers.discard(follower)
            for _, subscription in self._subscriptions:
                subscription.close()

    def _take(self) -> Iterator[Message]:
        """What is new. Everything is taken before the first message is made: it is one moment's state."""
        taken: list[tuple[TableDelta, list[Any]]] = []
        for table, follower in self._tables:
            state = (table.epoch, table.revision, table.complete, table.stale)
            if state == self._told.get(table.spec.name):
                continue
            pending, follower.pending = follower.pending, {}
            delta = TableDelta(table.spec.name, *state, snapshot=table.spec.name not in self._told)
            delta.deletes = [encode_key(key) for key, row in pending.items() if row is None]
            taken.append((delta, [row for row in pending.values() if row is not None]))
            self._told[table.spec.name] = state
        events = [(name, d) for name, s in self._subscriptions if (d := s.take()) is not None]
        if events:
            yield Message(events=[(n, [msgspec.msgpack.encode(e) for e in d.events], d.lost) for n, d in events])
        for number, (delta, rows) in enumerate(taken):
            for start in range(0, len(rows) or 1, PART):
                part = TableDelta(delta.name, delta.epoch, delta.revision, delta.complete, delta.stale, delta.snapshot)
                part.rows = [encode_row(row) for row in rows[start : start + PART]]
                last = start + PART >= len(rows)
                part.deletes = delta.deletes if last else []
                yield Message(tables=[part], more=not last or number + 1 < len(taken))


def follow_handler(tables: Tables, events: Events) -> Any:
    """The handler of GET /follow?tables=a,b&topics=c&capacity=n."""

    async def follow(request: Request) -> AsyncIterator[Message]:
        names, topics = (request.query.get(k, "").split(",") for k in ("tables", "topics"))
        following = Following(tables, events, names, topics, int(request.query.get("capacity", "1024")))
        async for message in following.messages():
            yield message

    return follow
