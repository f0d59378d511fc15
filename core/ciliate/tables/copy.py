"""The copy beside a table file: at most a second older, and what is taken up when the file itself is damaged or gone.

It guards against a damaged file, not against a power cut: nothing waits for the disk. Its name ends in `.copy`.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import structlog

log = structlog.get_logger("tables")

Change = tuple[str, tuple[object, ...]]
"""A statement and its parameters, as it was done to the file."""


def check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError unless a file is sound."""
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise sqlite3.DatabaseError(f"database disk image is malformed: {finding}")


class Copy:
    """One file's copy. An error of it is logged and is nobody's else: the file is what counts.

    `note` and `take` are the writer's; what is done to the copy may be done in another thread.
    """

    def __init__(self, path: Path) -> None:
        """path: of the file."""
        self.path = path.with_name(f"{path.name}.copy")
        self._connection: sqlite3.Connection | None = None
        self._pending: list[Change] = []
        self._failed = False
        self._lock = threading.RLock()

    def restore(self, path: Path) -> bool:
        """Make a file that is not there from the copy; whether that was possible."""
        if not self.path.exists():
            return False
        try:
            with closing(_open(self.path)) as source, closing(_open(path)) as target:
                check(source)
                source.backup(target)
        except sqlite3.Error as error:
            log.error("the copy of a table file is damaged too", path=str(self.path), error=str(error))
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return False
        return True

    def renew(self, source: sqlite3.Connection) -> None:
        """Copy all of an open file. The old copy stays until the new one is whole."""
        fresh = self.path.with_name(f"{self.path.name}-new")
        with self._lock:
            self.close()
            try:
                fresh.unlink(missing_ok=True)
                with closing(_open(fresh)) as target:
                    source.backup(target)
                fresh.rename(self.path)
                self._connection = _open(self.path)
                self._failed = False
            except (sqlite3.Error, OSError) as error:
                self._complain(error)

    def note(self, changes: list[Change]) -> None:
        """Remember what was done to the file; `catch_up` does it to the copy."""
        self._pending += changes

    def take(self) -> list[Change]:
        """What was noted since the last call."""
        taken, self._pending = self._pending, []
        return taken

    def catch_up(self, source: sqlite3.Connection, changes: list[Change]) -> None:
        """Do what was taken, in one transaction; after an error, copy all anew."""
        with self._lock:
            connection = self._connection
            if connection is None:
                self.renew(source)
            elif changes:
                try:
                    connection.execute("BEGIN")
                    for statement, parameters in changes:
                        connection.execute(statement, parameters)
                    connection.execute("COMMIT")
                except sqlite3.Error as error:
                    self._complain(error)
                    self.close()

    def _complain(self, error: Exception) -> None:
        if not self._failed:
            log.warning("the copy of a table file can't be written; tried again", path=str(self.path), error=str(error))
        self._failed = True

    def close(self) -> None:
        """Let go of the copy."""
        with self._lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=1.0, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=MEMORY")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-256")
    return connection
