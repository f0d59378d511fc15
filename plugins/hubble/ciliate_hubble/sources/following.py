"""Following a table: each row put and deleted in slices, each change told with what was there before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ciliate.model.base import Row
from ciliate.tables.hub import PluginTables
from ciliate.tables.spec import TableSpec

R = TypeVar("R", bound=Row)
SLICE = 256
"""Rows between two looks at what else is to be done."""


@dataclass
class Following(Generic[R]):
    """One table. `tell` gets the row before and after (None: there is none), of changes but not of what was there."""

    tables: PluginTables
    spec: TableSpec[R]
    put: Callable[[R], None]
    delete: Callable[[Any], None]
    tell: Callable[[R | None, R | None], None] = lambda before, after: None
    after: Callable[[], None] = lambda: None  # after each batch of changes
    known: dict[Any, R] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever. The rows that there are already are read here, a table a turn of the loop."""
        key_of = self.spec.key_of
        async for changes in self.tables.reader(self.spec).changes():
            deletes = changes.deletes
            if changes.snapshot:
                there = {key_of(row) for row in changes.upserts}
                deletes = [key for key in self.known if key not in there]
            for number, row in enumerate(changes.upserts):
                before = self.known.get(key_of(row))
                self.known[key_of(row)] = row
                self.put(row)
                if not changes.snapshot:
                    self.tell(before, row)
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            for key in deletes:
                if (gone := self.known.pop(key, None)) is not None:
                    self.delete(key)
                    self.tell(gone, None)
            self.after()
