"""The database file: opening, checking and creating it, and connections to it.

Nothing but SQLite may open an existing file in a process that may have a connection to it: closing any descriptor of a
file gives up all the locks that the process has on it. Another process then takes itself for the last user, and removes
the write-ahead log from under this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator

from ciliate.store import UnavailableError

from ciliate_store_local.config import Options
from ciliate_store_local.errors import corrupt, translate

_APPLICATION = 0x43494C53
"""Marks the file as ours (SQLite's application_id)."""
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0), ('compacted', 0);
CREATE TABLE objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (resource, namespace, name)
);
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, type TEXT NOT NULL,
    body BLOB NOT NULL, previous BLOB, total INTEGER NOT NULL
);
CREATE INDEX changes_of_resource ON changes (resource, revision);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
"""objects: the state by key. changes: revision to the state after and before; total: bytes of all changes ever."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005


class Database:
    """One process's hold on the file. `connect` gives connections; each is for one thread at a time."""

    def __init__(self, options: Options, first: Callable[[sqlite3.Connection], None]) -> None:
        """Open or create the file. first: what to write into a new one, in the transaction that makes it.

        Raises UnavailableError; CorruptError if the file is damaged or not a store.
        """
        self.path = options.file
        self._timeout = options.lock_timeout
        self._users = -1
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._check_not_lost()
            with contextlib.suppress(FileExistsError):  # an existing file is SQLite's alone: see below
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._users = os.open(f"{self.path}.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = self.path.stat().st_ino
            self._join(first)
        except OSError as error:
            self.close()
            raise UnavailableError(f"store {self.path} can't be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    def _check_not_lost(self) -> None:
        """A store that has gone is not begun anew: every policy would be gone with it, and what they deny allowed."""
        users = self.path.with_name(f"{self.path.name}.users")
        if users.exists() and not self.path.exists():
            raise UnavailableError(
                f"store {self.path} is gone, though {users.name} beside it shows that there was one:"
                f" put it back, or remove {users} to begin with an empty store"
            )

    def _join(self, first: Callable[[sqlite3.Connection], None]) -> None:
        """Become one of the file's users. Whoever is alone checks all of it: the last one may have been killed."""
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        with contextlib.closing(self.connect()) as connection, self.errors():
            self._check(connection, thoroughly=alone)
            with self.transaction(connection, write=True):
                if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    first(connection)
        with contextlib.suppress(BlockingIOError):  # another one is checking: at worst a third checks once more
            fcntl.flock(self._users, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _check(self, connection: sqlite3.Connection, thoroughly: bool) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version and connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise UnavailableError(f"{self.path} is a database, but not a store of Ciliate: give another path")
        if version > _VERSION:
            raise UnavailableError(
                f"store {self.path} was written by a newer Ciliate (version {version}): upgrade this one"
            )
        if thoroughly and (finding := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise corrupt(self.path, finding)

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode; commits are on the disk when they return."""
        with self.errors():
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA journal_size_limit = 8388608")
            except BaseException:
                connection.close()
                raise
            return connection

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into the store's."""
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self.path, self._timeout) from error

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection, write: bool) -> Iterator[None]:
        """Commit at the end, or undo everything if an error comes through. For SQLite's errors, see `errors`."""
        if write:
            self._begin_writing(connection)
        else:
            connection.execute("BEGIN")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _begin_writing(self, connection: sqlite3.Connection) -> None:
        """Take the write lock. SQLite's own waiting sleeps up to 100 ms at a time, which is 300 writes long."""
        self._check_unmoved()
        deadline, pause = time.monotonic() + self._timeout, _FIRST_PAUSE
        connection.execute("PRAGMA busy_timeout = 0")
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
            else:
                return
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    def _check_unmoved(self) -> None:
        """A deleted or replaced file would take writes that nobody ever sees."""
        try:
            same = self.path.stat().st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise UnavailableError(
                f"store {self.path} was deleted or replaced while in use; nothing is written until a restart"
            )

    def close(self) -> None:
        """Let go of the file. Connections are closed by whoever asked for them."""
        if self._users >= 0:
            os.close(self._users)
            self._users = -1
