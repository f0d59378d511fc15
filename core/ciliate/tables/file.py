"""The file that keeps a process's tables: SQLite, write-ahead log, one row a row.

synchronous=NORMAL: what a commit has returned survives a killed process; a power cut takes the pods with it anyway.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from ciliate.model.base import Row
from ciliate.tables.copy import Change, Copy, check
from ciliate.tables.spec import Key, TableSpec

R = TypeVar("R", bound=Row)
log = structlog.get_logger("tables")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tables (name TEXT PRIMARY KEY, version INTEGER NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rows (
    name TEXT NOT NULL, key BLOB NOT NULL, row BLOB NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaving (name TEXT PRIMARY KEY, plugin TEXT NOT NULL);
"""

Write = tuple[str, bytes, bytes | None]
"""Table, encoded key, encoded row or None for a deletion."""


class TableFileError(Exception):
    """The file can't be written; the message names it and what to do."""


def encode_key(key: Any) -> bytes:
    """A key as bytes, for the file."""
    return msgspec.msgpack.encode(key)


def encode_row(row: Row) -> bytes:
    """A row as bytes, for the file; fields go by name, so that another version reads what it knows."""
    return msgspec.msgpack.encode(row)


class TableFile:
    """Rows on disk. A corrupt file is kept aside under another name, and a new one made from its copy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._copy = Copy(path)
        if not path.exists() and self._copy.restore(path):
            log.error("table file is gone; made anew from its copy", path=str(path))
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise TableFileError(
                    f"opening {path}: {error}; check the folder's permissions and free space"
                ) from error
            self.set_aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
            for suffix in ("", "-wal", "-shm"):
                source = path.with_name(path.name + suffix)
                if source.exists():
                    source.rename(self.set_aside.with_name(self.set_aside.name + suffix))
            what = "made anew from its copy" if self._copy.restore(path) else "starting from nothing"
            log.error(f"table file is corrupt; kept aside, {what}", path=str(path), kept=str(self.set_aside))
            self._connection = self._open()
        self._copy.renew(self._connection)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-256")
        connection.executescript(_SCHEMA)
        check(connection)
        return connection

    def load(self, spec: TableSpec[R]) -> tuple[int, dict[Key, R]]:
        """(last epoch, rows) of a table; a row that can't be read is left out by name, the others are given."""
        return _load(self._connection, spec)

    def load_elsewhere(self, spec: TableSpec[R]) -> tuple[int, dict[Key, R]]:
        """(last epoch, rows) of a table in another process's file beside this one; of several, the latest life's."""
        best: tuple[int, dict[Key, R]] = (0, {})
        for path in self.path.parent.glob("*.sqlite"):
            if path == self.path:
                continue
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)) as connection:
                    epoch = connection.execute("SELECT epoch FROM tables WHERE name = ?", (spec.name,)).fetchone()
                    if epoch is not None and epoch[0] > best[0]:
                        best = _load(connection, spec)
            except sqlite3.Error as error:
                if "no such table" not in str(error):  # as in a file that is just being made
                    log.warning("another process's table file can't be read", path=str(path), error=str(error))
        return best

    def begin(self, spec: TableSpec[R], epoch: int, leaves_with: str = "") -> None:
        """Note a writer's new life; leaves_with: the plugin without which the table is deleted."""
        changes: list[Change] = [
            ("REPLACE INTO tables VALUES (?, ?, ?)", (spec.name, spec.version, epoch)),
            ("DELETE FROM leaving WHERE name = ?", (spec.name,)),
        ]
        if leaves_with:
            changes.append(("REPLACE INTO leaving VALUES (?, ?)", (spec.name, leaves_with)))
        self._change(changes)

    def drop_left(self, enabled: Iterable[str]) -> list[str]:
        """Delete the tables whose plugin is not enabled any more; their names. Raises TableFileError."""
        kept = set(enabled)
        noted = self._connection.execute("SELECT name, plugin FROM leaving").fetchall()
        gone = [name for name, plugin in noted if plugin not in kept]
        parts = ("rows", "tables", "leaving")
        if not gone:
            return []
        self._change([(f"DELETE FROM {part} WHERE name = ?", (name,)) for name in gone for part in parts])
        return gone

    def write(self, writes: Iterable[Write]) -> None:
        """Write rows in one transaction. Raises TableFileError; nothing is written then."""
        self._change(
            [
                ("DELETE FROM rows WHERE name = ? AND key = ?", (name, key))
                if row is None
                else ("REPLACE INTO rows VALUES (?, ?, ?)", (name, key, row))
                for name, key, row in writes
            ]
        )

    def _change(self, changes: list[Change]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement, parameters in changes:
                connection.execute(statement, parameters)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise TableFileError(
                f"writing {self.path}: {error}; free space on its file system, or mend the disk"
            ) from error
        self._copy.note(changes)

    def copying(self) -> Callable[[], None]:
        """What brings the copy up to date with all that is written by now, in any thread; its errors are in the log."""
        return partial(self._copy.catch_up, self._connection, self._copy.take())

    def close(self) -> None:
        """Close the file."""
        self.copying()()
        self._copy.close()
        self._connection.close()


def _load(connection: sqlite3.Connection, spec: TableSpec[R]) -> tuple[int, dict[Key, R]]:
    epoch = connection.execute("SELECT epoch FROM tables WHERE name = ?", (spec.name,)).fetchone()
    rows: dict[Key, R] = {}
    decoder = msgspec.msgpack.Decoder(spec.row)
    for key, raw in connection.execute("SELECT key, row FROM rows WHERE name = ?", (spec.name,)):
        try:
            row = decoder.decode(raw)
        except msgspec.DecodeError as error:
            log.error("row can't be read; left out", table=spec.name, key=repr(key), error=str(error))
            continue
        rows[spec.key_of(row)] = row
    return (epoch[0] if epoch else 0), rows
