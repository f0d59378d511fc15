"""One table in memory: rows, the readers that follow them, and those that wait for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from ciliate.model.base import Row
from ciliate.tables.spec import Key, TableSpec

R = TypeVar("R", bound=Row)
Predicate = Callable[[R | None], bool]


@dataclass(frozen=True)
class Changes(Generic[R]):
    """What happened to a table since the reader last looked; several changes of one row are one."""

    upserts: list[R]
    deletes: list[Any]  # keys
    complete: bool  # nothing may be pruned on the word of an incomplete table
    snapshot: bool = False  # upserts are the whole table


class Follower(Generic[R]):
    """A reader's pending changes, by key; several may share one wake-up."""

    def __init__(self, wake: asyncio.Event | None = None, pending: dict[Key, R | None] | None = None) -> None:
        self.pending: dict[Key, R | None] = {} if pending is None else pending
        self.wake = asyncio.Event() if wake is None else wake


@dataclass(eq=False)
class Table(Generic[R]):
    """Rows of one spec within this process. Written through a TableWriter, read through a TableReader."""

    spec: TableSpec[R]
    rows: dict[Key, R] = field(default_factory=dict)
    epoch: int = 0
    revision: int = 0
    complete: bool = False
    stale: bool = True  # no writer in this process yet: these are the persisted rows
    followers: set[Follower[R]] = field(default_factory=set)
    waiters: dict[Key, list[tuple[Predicate[R], asyncio.Future[R | None]]]] = field(default_factory=dict)

    def apply(self, changes: Mapping[Key, R | None]) -> None:
        """Make changes (None deletes) visible to every reader, as one revision."""
        if not changes:
            return
        self.revision += 1
        for key, row in changes.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        for follower in self.followers:
            follower.pending.update(changes)
            follower.wake.set()
        if self.waiters:
            self._answer_waiters(changes)

    def mark_complete(self) -> None:
        """Tell readers that all rows are there."""
        self.complete = True
        self.wake()

    def wake(self) -> None:
        """Make every reader look again."""
        for follower in self.followers:
            follower.wake.set()

    def _answer_waiters(self, changes: Mapping[Key, R | None]) -> None:
        for key, row in changes.items():
            waiting = self.waiters.get(key)
            if waiting is None:
                continue
            for predicate, future in list(waiting):
                if not future.done() and predicate(row):
                    future.set_result(row)


class TableReader(Generic[R]):
    """A plugin's view of a table."""

    def __init__(self, table: Table[R]) -> None:
        self._table = table

    @property
    def spec(self) -> TableSpec[R]:
        """Name, row type and key."""
        return self._table.spec

    @property
    def rows(self) -> Mapping[Any, R]:
        """All rows by key, as they are now."""
        return MappingProxyType(self._table.rows)

    @property
    def complete(self) -> bool:
        """Whether the writer has said that all rows are there, in this life of it."""
        return self._table.complete

    @property
    def stale(self) -> bool:
        """Whether the rows are the persisted ones, because the writer is not there."""
        return self._table.stale

    @property
    def epoch(self) -> int:
        """The writer's life."""
        return self._table.epoch

    @property
    def revision(self) -> int:
        """The number of commits in this epoch."""
        return self._table.revision

    def get(self, key: Key) -> R | None:
        """One row, or None."""
        return self._table.rows.get(key)

    async def changes(self) -> AsyncGenerator[Changes[R], None]:
        """The whole table, then every later change, without end."""
        follower: Follower[R] = Follower()
        table = self._table
        table.followers.add(follower)
        try:
            yield Changes(list(table.rows.values()), [], table.complete, snapshot=True)
            while True:
                await follower.wake.wait()
                follower.wake.clear()
                pending, follower.pending = follower.pending, {}
                upserts = [row for row in pending.values() if row is not None]
                deletes = [key for key, row in pending.items() if row is None]
                yield Changes(upserts, deletes, table.complete)
        finally:
            table.followers.discard(follower)

    async def until(self, key: Key, predicate: Predicate[R], timeout: float) -> R | None:
        """Wait until the row of a key (None while there is none) satisfies the predicate. Raises TimeoutError."""
        row = self._table.rows.get(key)
        if predicate(row):
            return row
        future: asyncio.Future[R | None] = asyncio.get_running_loop().create_future()
        entry = (predicate, future)
        self._table.waiters.setdefault(key, []).append(entry)
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            waiting = self._table.waiters[key]
            waiting.remove(entry)
            if not waiting:
                del self._table.waiters[key]


class TableWriter(Generic[R]):
    """The one writer of a table."""

    def __init__(self, table: Table[R], write: Callable[[Table[R], Key, R | None], None]) -> None:
        self._table = table
        self._write = write

    @property
    def spec(self) -> TableSpec[R]:
        """Name, row type and key."""
        return self._table.spec

    @property
    def rows(self) -> Mapping[Any, R]:
        """All committed rows by key; at the start those that the last life left."""
        return MappingProxyType(self._table.rows)

    def put(self, row: R) -> None:
        """Add or replace a row; an equal one changes nothing."""
        self._write(self._table, self._table.spec.key_of(row), row)

    def put_all(self, rows: Iterable[R]) -> None:
        """Add or replace several."""
        for row in rows:
            self.put(row)

    def delete(self, key: Key) -> None:
        """Remove a row; an unknown key changes nothing."""
        self._write(self._table, key, None)

    def complete(self) -> None:
        """Say that every row that there is, is in the table: from now on readers may prune on its word."""
        if not self._table.complete:
            self._table.mark_complete()
