"""What is done inside one transaction: reading and writing objects, and the change log that goes with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from ciliate.fields import ObjectDecoder, decoder, matches
from ciliate.store import ExpiredError, InvalidError, Kind, Object, ObjectKey, ObjectList, WatchEvent, WatchType

from ciliate_store_local.config import Options

_encode = msgspec.json.Encoder().encode
_decode: msgspec.json.Decoder[Object] = msgspec.json.Decoder(Object)

_COMPACT_EVERY = 256
"""Revisions between two looks at the log's size."""
READ_AT_ONCE = 256
"""Changes that a watcher reads in one go."""


def resource(kind: Kind) -> str:
    """A kind's name in the database: plural and group, whatever the version."""
    group, slash, _ = kind.api_version.partition("/")
    return f"{kind.plural}.{group}" if slash else kind.plural


def revision_now(connection: sqlite3.Connection) -> int:
    """The revision of the newest change that this transaction sees."""
    found: int = connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()[0]
    return found


@dataclass(frozen=True)
class Wanted:
    """Which objects of a kind a reader wants, and what of them."""

    kind: Kind
    namespace: str | None = None
    fields: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None

    @property
    def decoder(self) -> ObjectDecoder:
        """How it gets them."""
        return decoder(self.kind.fields)

    def matches(self, body: bytes | None) -> bool:
        """Whether an object as it is kept (None: there is none) is among them, but for its namespace."""
        if body is None:
            return False
        return not (self.fields or self.labels) or matches(_decode.decode(body), self.fields, self.labels)


def read(connection: sqlite3.Connection, kind: Kind, key: ObjectKey) -> bytes | None:
    """One object as it is kept, or None."""
    row = connection.execute(
        "SELECT body FROM objects WHERE resource = ? AND namespace = ? AND name = ?", (resource(kind), *key)
    ).fetchone()
    return row[0] if row else None


def read_all(connection: sqlite3.Connection, wanted: Wanted) -> ObjectList:
    """All objects of a kind, by namespace and name, and the revision of this transaction."""
    query, values = "SELECT body FROM objects WHERE resource = ?", [resource(wanted.kind)]
    if wanted.namespace is not None:
        query, values = query + " AND namespace = ?", [*values, wanted.namespace]
    rows = connection.execute(query + " ORDER BY namespace, name", values)
    decode = wanted.decoder.decode
    return ObjectList([decode(row[0]) for row in rows if wanted.matches(row[0])], str(revision_now(connection)))


@dataclass
class Writing:
    """One write transaction, of one or more operations. `finish` comes last, before the commit."""

    connection: sqlite3.Connection
    options: Options
    touched: set[str] = field(default_factory=set)
    """Resources that have changed: whose watchers to wake."""

    def __post_init__(self) -> None:
        self._first = self.revision = revision_now(self.connection)
        row = self.connection.execute("SELECT total FROM changes ORDER BY revision DESC LIMIT 1").fetchone()
        self._total: int = row[0] if row else 0

    def read(self, kind: Kind, key: ObjectKey) -> Object | None:
        """One object as this transaction has left it, or None."""
        body = read(self.connection, kind, key)
        return None if body is None else _decode.decode(body)

    def write(self, kind: Kind, new: Object, previous: Object | None) -> Object:
        """Put an object in place of `previous` (None: there was none). Raises InvalidError if it is too large."""
        key, body, stamped = self._stamp(new)
        if len(body) > self.options.object_bytes:
            raise InvalidError(
                f"{kind.kind} {key.namespace}/{key.name} has {len(body)} bytes;"
                f" the limit is {self.options.object_bytes}: split it"
            )
        self.connection.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
            (resource(kind), *key, body),
        )
        self._log(kind, key, WatchType.ADDED if previous is None else WatchType.MODIFIED, body, previous)
        return stamped

    def remove(self, kind: Kind, last: Object, previous: Object) -> Object:
        """Take an object away; `last` is the state that watchers are told."""
        key, body, stamped = self._stamp(last)
        self.connection.execute(
            "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", (resource(kind), *key)
        )
        self._log(kind, key, WatchType.DELETED, body, previous)
        return stamped

    def trim(self, kind: Kind, most: int) -> None:
        """Take the objects of a kind away that have not changed for longest, a tenth of them, if there are too many."""
        where = (resource(kind),)
        (count,) = self.connection.execute("SELECT COUNT(*) FROM objects WHERE resource = ?", where).fetchone()
        if count <= most:
            return
        rows = self.connection.execute("SELECT body FROM objects WHERE resource = ?", where).fetchall()
        found = sorted(
            (_decode.decode(row[0]) for row in rows), key=lambda obj: int(obj["metadata"]["resourceVersion"])
        )
        for obj in found[: count - most * 9 // 10]:
            self.remove(kind, obj, obj)

    def _stamp(self, obj: Object) -> tuple[ObjectKey, bytes, Object]:
        """Key, JSON and a copy of an object, at the revision that its change will have."""
        meta = {**obj["metadata"], "resourceVersion": str(self.revision + 1)}
        stamped = {**obj, "metadata": meta}
        return ObjectKey(meta.get("namespace", ""), meta["name"]), _encode(stamped), stamped

    def _log(self, kind: Kind, key: ObjectKey, change: WatchType, body: bytes, previous: Object | None) -> None:
        before = None if previous is None else _encode(previous)
        self.revision += 1
        self._total += len(body) + len(before or b"")
        self.connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.revision, resource(kind), key.namespace, change.value, body, before, self._total),
        )
        self.touched.add(resource(kind))

    def finish(self) -> None:
        """Write down the revision; from time to time, forget changes that are older than the history kept."""
        if self.revision == self._first:
            return
        self.connection.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (self.revision,))
        if self.revision // _COMPACT_EVERY != self._first // _COMPACT_EVERY:
            self._compact()

    def _compact(self) -> None:
        oldest = self.revision - self.options.history
        row = self.connection.execute(
            "SELECT revision FROM changes WHERE revision > ? AND total >= ? ORDER BY revision LIMIT 1",
            (oldest, self._total - self.options.history_bytes),
        ).fetchone()
        last_forgotten = max(oldest, row[0] - 1 if row else self.revision - 1)
        if self.connection.execute("DELETE FROM changes WHERE revision <= ?", (last_forgotten,)).rowcount:
            self.connection.execute("UPDATE meta SET value = ? WHERE key = 'compacted'", (last_forgotten,))


def read_changes(connection: sqlite3.Connection, wanted: Wanted, after: int) -> tuple[list[WatchEvent], int, bool]:
    """(changes in order, the revision up to which they are all there is, whether more wait). Raises ExpiredError."""
    newest = revision_now(connection)
    compacted = connection.execute("SELECT value FROM meta WHERE key = 'compacted'").fetchone()[0]
    if after < compacted or after > newest:
        raise ExpiredError(
            f"{wanted.kind.plural}: revision {after} is not kept; there are {compacted} to {newest}: list again"
        )
    query, values = (
        "SELECT revision, type, body, previous FROM changes WHERE resource = ? AND revision > ?",
        [resource(wanted.kind), after],
    )
    if wanted.namespace is not None:
        query, values = query + " AND namespace = ?", [*values, wanted.namespace]
    rows = connection.execute(f"{query} ORDER BY revision LIMIT {READ_AT_ONCE}", values).fetchall()
    events = [event for row in rows if (event := _event(wanted, *row)) is not None]
    more = len(rows) == READ_AT_ONCE
    return events, rows[-1][0] if more else newest, more


def _event(wanted: Wanted, revision: int, change: str, body: bytes, previous: bytes | None) -> WatchEvent | None:
    """A change as a reader sees it: objects come and go as they match."""
    kind_of_change = WatchType(change)
    if wanted.fields or wanted.labels:
        was = wanted.matches(previous)
        is_now = kind_of_change is not WatchType.DELETED and wanted.matches(body)
        if not was and not is_now:
            return None
        if was and not is_now:
            obj = wanted.decoder.decode(previous or b"")
            obj["metadata"]["resourceVersion"] = str(revision)
            return WatchEvent(WatchType.DELETED, obj, str(revision))
        kind_of_change = WatchType.MODIFIED if was else WatchType.ADDED
    return WatchEvent(kind_of_change, wanted.decoder.decode(body), str(revision))
