"""What an open store consists of, opened and closed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any, TypeVar

from ciliate.model.kinds import NAMESPACE
from ciliate.store import UnavailableError

from ciliate_store_local import objects
from ciliate_store_local.config import Options
from ciliate_store_local.database import Database
from ciliate_store_local.transaction import Writing
from ciliate_store_local.wakeups import Wakeups
from ciliate_store_local.writer import Writer

T = TypeVar("T")


@dataclass(frozen=True)
class Opened:
    """The file, a connection to read from, the thread that writes, and the socket that is rung."""

    database: Database
    connection: Connection
    wakeups: Wakeups
    writer: Writer

    @classmethod
    def open(cls, options: Options) -> Opened:
        """Open the store, or make a new one. Raises UnavailableError; CorruptError if the file is damaged."""
        database = Database(options, lambda connection: _begin(connection, options))
        try:
            connection = database.connect()
            wakeups = Wakeups(options.file)
            return cls(database, connection, wakeups, Writer(database, options, wakeups.ring))
        except BaseException as error:
            database.close()
            if isinstance(error, OSError):
                raise UnavailableError(f"store {options.path} can't be opened: {error}") from error
            raise

    def read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of `transaction` in a read transaction: for the reading thread."""
        with self.database.errors(), self.database.transaction(self.connection, write=False):
            return function(self.connection, *arguments)

    def close(self) -> None:
        """Close all of it; the writer must have been closed before."""
        self.wakeups.close()
        self.connection.close()
        self.database.close()


def _begin(connection: Connection, options: Options) -> None:
    """What a new store holds."""
    writing = Writing(connection, options)
    for name in objects.FIRST_NAMESPACES:
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        writing.write(NAMESPACE, objects.created(NAMESPACE, obj, name), None)
    writing.finish()
