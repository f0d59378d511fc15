"""The tables of one process: who writes which, commits over several, and what goes to disk when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import structlog

from ciliate.model.base import Row
from ciliate.tables.file import TableFile, TableFileError, Write, encode_key, encode_row
from ciliate.tables.spec import Durability, Key, TableSpec
from ciliate.tables.table import Table, TableReader, TableWriter

R = TypeVar("R", bound=Row)
log = structlog.get_logger("tables")

FLUSH_INTERVAL = 0.5
"""Seconds between flushes of tables that may lose the last second."""
FLUSH_SLICE = 1000
"""Rows of a transaction: some milliseconds."""


class TableError(Exception):
    """A table is opened twice for writing, or under two specs."""


class Tables:
    """Opens tables. A commit is persisted before any reader sees it, if its table is as durable as that."""

    def __init__(self, file: TableFile) -> None:
        self._file = file
        self._tables: dict[str, Table[Any]] = {}
        self._writers: dict[str, str] = {}
        self._open: dict[str, dict[Key, Row | None]] | None = None
        self._unflushed: dict[tuple[str, bytes], bytes | None] = {}
        self.leaving: set[str] = set()  # plugins whose tables go when they are disabled
        self.declared: frozenset[str] | None = None  # tables that plugins of this process may write; None: any
        self.absent: Callable[[Table[Any]], None] = lambda _: None  # called for a table that another process writes
        self.changed: Callable[[], None] = lambda: None  # called when this process writes one table more

    def writer(self, spec: TableSpec[R], plugin: str) -> TableWriter[R]:
        """Become the writer of a table: its rows are those of the last life, and it is incomplete."""
        if spec.name in self._writers:
            raise TableError(f"table {spec.name}: {plugin} can't write it, plugin {self._writers[spec.name]} does")
        table = self._table(spec)
        self._adopt(table)
        self._writers[spec.name] = plugin
        table.epoch += 1
        table.revision, table.stale = 0, False
        self._file.begin(spec, table.epoch, plugin if plugin in self.leaving else "")
        self.changed()
        return TableWriter(table, self._write)

    def drop_left(self, enabled: Iterable[str]) -> list[str]:
        """Delete the tables that earlier lives of this process wrote for `leaving` plugins that are enabled no more."""
        return self._file.drop_left(enabled)

    def reader(self, spec: TableSpec[R]) -> TableReader[R]:
        """Read a table; without its writer these are the persisted rows, marked stale."""
        return TableReader(self._table(spec))

    def written(self, names: Iterable[str] | None = None) -> list[Table[Any]]:
        """The tables that this process writes, all or those of some names."""
        return [self._tables[n] for n in self._writers if names is None or n in names]

    def close_writer(self, name: str) -> None:
        """Give up a writer (its plugin stopped): the table is stale until another comes."""
        if self._writers.pop(name, None) is not None:
            self._tables[name].stale = True
            self._tables[name].complete = False

    def all(self) -> list[tuple[Table[Any], str]]:
        """Every open table and the plugin that writes it (empty: none here)."""
        return [(table, self._writers.get(name, "")) for name, table in self._tables.items()]

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Puts and deletes inside are one commit over all their tables. An exception undoes it. Never await inside."""
        if self._open is not None:
            yield  # part of the commit around it
            return
        self._open = {}
        try:
            yield
            changes = self._open
        finally:
            self._open = None
        self._commit(changes)

    def flush(self) -> None:
        """Write what is not yet on disk. A failure is logged, and tried again at the next flush."""
        while self._unflushed and self._flush_some():
            pass

    def _flush_some(self) -> bool:
        """Write a slice of it, the oldest; False: it could not be written."""
        some = list(itertools.islice(self._unflushed.items(), FLUSH_SLICE))
        writes: list[Write] = [(name, key, row) for (name, key), row in some]
        try:
            self._file.write(writes)
        except TableFileError as error:
            log.error("tables are not flushed", error=str(error))
            return False
        for place, _ in some:
            del self._unflushed[place]
        return True

    async def run(self) -> None:
        """Flush for ever, and keep the file's copy up to date; a few rows at a time, so that others get their turn."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL)
            while self._unflushed and self._flush_some():
                await asyncio.sleep(0)
            await asyncio.to_thread(self._file.copying())

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        self._file.close()

    def _table(self, spec: TableSpec[R]) -> Table[R]:
        known = self._tables.get(spec.name)
        if known is None:
            foreign = self.declared is not None and spec.name not in self.declared
            epoch, rows = self._file.load_elsewhere(spec) if foreign else self._file.load(spec)
            known = self._tables[spec.name] = Table(spec, rows=rows, epoch=epoch)
            if foreign:
                self.absent(known)
        elif known.spec.row is not spec.row or known.spec.key != spec.key:
            raise TableError(f"table {spec.name}: asked for with rows of {spec.row}, but it has {known.spec.row}")
        return known

    def _adopt(self, table: Table[R]) -> None:
        """Take over the rows of the last writer: in another process, if its plugin has been moved here since."""
        own, kept = self._file.load(table.spec)
        epoch, rows = self._file.load_elsewhere(table.spec)
        if epoch <= own:
            if own > table.epoch:  # it was read as another process's until now
                table.rows, table.epoch = kept, own
            return
        keys = {key: rows.get(key) for key in (*table.rows, *rows)}
        self._file.write(
            (table.spec.name, encode_key(k), None if r is None else encode_row(r)) for k, r in keys.items()
        )
        table.rows, table.epoch = rows, epoch

    def _write(self, table: Table[Any], key: Key, row: Row | None) -> None:
        if self._open is not None:
            self._open.setdefault(table.spec.name, {})[key] = row
        else:
            self._commit({table.spec.name: {key: row}})

    def _commit(self, changes: dict[str, dict[Key, Row | None]]) -> None:
        real = {
            name: {k: row for k, row in rows.items() if self._tables[name].rows.get(k) != row}
            for name, rows in changes.items()
        }
        writes: list[Write] = []
        for name, rows in real.items():
            encoded = [(name, encode_key(k), None if row is None else encode_row(row)) for k, row in rows.items()]
            if self._tables[name].spec.durability is Durability.COMMIT:
                writes += encoded
            else:
                self._unflushed.update({(name, key): row for name, key, row in encoded})
        if writes:
            self._file.write(writes)
        for name, rows in real.items():
            self._tables[name].apply(rows)


class PluginTables:
    """The tables as one plugin sees them: it may write those that its hook `ciliate_tables` declares."""

    def __init__(self, hub: Tables, plugin: str, declared: frozenset[str]) -> None:
        self._hub = hub
        self._plugin = plugin
        self._declared = declared

    def writer(self, spec: TableSpec[R]) -> TableWriter[R]:
        """Become the writer of a table. Raises TableError if another plugin is, or if it is not declared."""
        if spec.name not in self._declared:
            raise TableError(f"table {spec.name}: plugin {self._plugin} doesn't declare it in ciliate_tables")
        return self._hub.writer(spec, self._plugin)

    def reader(self, spec: TableSpec[R]) -> TableReader[R]:
        """Read any table."""
        return self._hub.reader(spec)

    def commit(self) -> AbstractContextManager[None]:
        """One commit over several tables: see `Tables.commit`."""
        return self._hub.commit()
