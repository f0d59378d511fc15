"""A table that another process writes, kept equal to it from what that process tells."""

from __future__ import annotations

import typing
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from ciliate.model.base import Row
from ciliate.tables.spec import Key, TableSpec
from ciliate.tables.table import Table

R = TypeVar("R", bound=Row)
log = structlog.get_logger("tables")


class TableDelta(msgspec.Struct):
    """Changes of one table between processes. Rows go by field names: what a reader lacks it ignores or defaults."""

    name: str
    epoch: int
    revision: int
    complete: bool
    stale: bool = False
    snapshot: bool = False  # rows are the whole table
    rows: list[bytes] = []
    deletes: list[bytes] = []


class Mirror(Generic[R]):
    """Applies deltas to this process's copy.

    A row that an incomplete writer's snapshot lacks is kept until that writer is complete. A row that this version
    can't read keeps the copy incomplete: nothing may be pruned for want of it.
    """

    def __init__(self, table: Table[R]) -> None:
        self.table = table
        self._rows = msgspec.msgpack.Decoder(table.spec.row)
        self._keys: msgspec.msgpack.Decoder[Key] = msgspec.msgpack.Decoder(_key_type(table.spec))
        self._held: set[Key] = set()
        self._unreadable: set[Key] = set()

    def apply(self, deltas: list[TableDelta]) -> None:
        """Make one commit's parts visible at once."""
        table, last = self.table, deltas[-1]
        changes: dict[Key, R | None] = {}
        if last.snapshot:
            self._unreadable.clear()
        for delta in deltas:
            for raw in delta.rows:
                self._take(raw, changes)
            for raw in delta.deletes:
                key = self._keys.decode(raw)
                self._unreadable.discard(key)
                changes[key] = None
        if last.snapshot:
            self._held = {key for key in table.rows if key not in changes and key not in self._unreadable}
        else:
            self._held -= changes.keys()
        complete = last.complete and not self._unreadable
        if complete:
            changes.update(dict.fromkeys(self._held))
            self._held = set()
        table.epoch, table.stale, table.complete = last.epoch, last.stale, complete
        table.apply({k: row for k, row in changes.items() if table.rows.get(k) != row})
        table.revision = last.revision
        table.wake()

    def lost(self) -> None:
        """The writer is gone: what is known stays, and nothing may be pruned on its word."""
        self.table.stale, self.table.complete = True, False
        self.table.wake()

    def _take(self, raw: bytes, changes: dict[Key, R | None]) -> None:
        spec = self.table.spec
        try:
            row = self._rows.decode(raw)
        except msgspec.DecodeError as error:
            fields = msgspec.msgpack.decode(raw)
            values = tuple(fields.get(name) for name in spec.key)
            try:
                key = msgspec.convert(values if len(values) > 1 else values[0], _key_type(spec))
            except msgspec.ValidationError:
                key = repr(values)
            self._unreadable.add(key)
            log.error("row of another version can't be read", table=spec.name, key=repr(key), error=str(error))
        else:
            key = spec.key_of(row)
            self._unreadable.discard(key)
            changes[key] = row


def _key_type(spec: TableSpec[Any]) -> Any:
    hints = typing.get_type_hints(spec.row)
    types = [hints[name] for name in spec.key]
    return types[0] if len(types) == 1 else tuple.__class_getitem__(tuple(types))
