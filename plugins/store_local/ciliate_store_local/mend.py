"""`python -m ciliate_store_local.mend PATH`: save every object of a damaged store that can still be read.

Writes PATH.mended and changes nothing else; whoever runs it puts that file in the damaged one's place.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ciliate_store_local.config import Options
from ciliate_store_local.database import Database

_MISSES = 10_000
"""So many absent rows in sequence are taken for the end of a table whose end can't be read."""

Rows = dict[tuple[str, str, str], bytes]
"""(resource, namespace, name) to an object's JSON."""


def mend(damaged: Path, mended: Path) -> int:
    """Write the readable objects of one file into a new one; the number of them. Raises OSError, sqlite3.Error."""
    if mended.exists():
        raise FileExistsError(f"{mended} exists: move it away first")
    with contextlib.closing(sqlite3.connect(f"file:{damaged}?mode=ro", uri=True)) as connection:
        saved = _last_changes(connection)
        objects = _rows(connection, "objects", "resource, namespace, name, body")
        saved.update({(row[0], row[1], row[2]): row[3] for row in objects})
    if not saved:
        raise sqlite3.DatabaseError("not one object can be read")
    revisions = (int(msgspec.json.decode(body)["metadata"]["resourceVersion"]) for body in saved.values())
    revision = max(revisions, default=0) + 1

    def fill(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO objects VALUES (?, ?, ?, ?)", [(*key, body) for key, body in saved.items()])
        # Nothing is known of the changes before: watchers list again.
        connection.execute("UPDATE meta SET value = ?", (revision,))

    Database(Options(path=str(mended)), fill).close()
    return len(saved)


def _last_changes(connection: sqlite3.Connection) -> Rows:
    """The objects that the change log knows to exist: what is missing in the table of objects may be there."""
    known: Rows = {}
    for resource, change, body in _rows(connection, "changes", "resource, type, body"):
        meta = msgspec.json.decode(body)["metadata"]
        key = (resource, meta.get("namespace", ""), meta["name"])
        if change == "DELETED":
            known.pop(key, None)
        else:
            known[key] = body
    return known


def _rows(connection: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The readable rows of a table, one look-up each, so that a bad page costs its own rows only."""
    try:
        first, last = connection.execute(f"SELECT min(rowid), max(rowid) FROM {table}").fetchone()
    except sqlite3.DatabaseError:
        first, last = 1, None
    rowid, misses = first or 1, 0
    while misses < _MISSES and (last is None or rowid <= last):
        row = None
        with contextlib.suppress(sqlite3.DatabaseError):
            row = connection.execute(f"SELECT {columns} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
        misses = 0 if row else misses + 1
        rowid += 1
        if row:
            yield row


def main(arguments: list[str]) -> int:
    """The command; the exit status."""
    if len(arguments) != 1:
        print("usage: python -m ciliate_store_local.mend PATH", file=sys.stderr)
        return 2
    damaged = Path(arguments[0]).absolute()
    mended = damaged.with_name(damaged.name + ".mended")
    try:
        count = mend(damaged, mended)
    except (OSError, sqlite3.Error) as error:
        print(f"{damaged} can't be mended: {error}. Put a backup in its place", file=sys.stderr)
        return 1
    print(f"{count} objects saved in {mended}. Put it in the place of {damaged}, and remove {damaged}-wal and -shm")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
