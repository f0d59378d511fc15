"""`LocalStore`: the store interface over the file."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import structlog
from ciliate.fields import decoder
from ciliate.metrics import Metrics
from ciliate.model.kinds import KINDS
from ciliate.recorder import EVENT
from ciliate.store import (
    AlreadyExistsError,
    InvalidError,
    Kind,
    NotFoundError,
    Object,
    ObjectKey,
    ObjectList,
    Selection,
    StoreError,
    UnavailableError,
    WatchEvent,
    WatchType,
    object_key,
)

from ciliate_store_local import merging, objects, transaction
from ciliate_store_local.config import Options, parse_options
from ciliate_store_local.opened import Opened
from ciliate_store_local.transaction import Wanted, Writing, resource
from ciliate_store_local.writer import Operation

T = TypeVar("T")
log = structlog.get_logger("store")

_Step = Callable[[Kind, Object, Object], Object]
"""(kind, an object's state, what is given) to its next state."""
_NAME_TRIES = 16
_BOOKMARK_SECONDS = 60.0


class LocalStore:
    """Objects in one SQLite file, for any number of processes of one machine (see `ciliate.store.Store`).

    Reads and writes have a thread each; nothing of them runs in the event loop but the copying of one object.
    """

    options = Options

    def __init__(self, options: Mapping[str, Any], kinds: Sequence[Kind]) -> None:
        """Open the store, or make a new one (which begins with the namespaces default and kube-system).

        options: see `config.Options`. kinds: what is accepted beyond `ciliate.model.kinds`. Raises InvalidError.
        A store that can't be opened now (a full disk, a damaged file) is said in the log and by every call, and tried
        again: an agent goes on with what it has.
        """
        self._options = parse_options(options)
        self._kinds = {(kind.api_version, kind.kind): kind for kind in (*KINDS, *kinds)}
        self._reader = ThreadPoolExecutor(1, "store-reader")
        self._closed = False
        self._opened: Opened | None = None
        self._problem = ""
        try:
            self._open()
        except UnavailableError as error:
            log.error("store is not available; each call tries to open it again", reason=str(error))

    def _open(self) -> Opened:
        if self._opened is None:
            try:
                self._opened = Opened.open(self._options)
            except UnavailableError as error:
                self._problem = str(error)
                raise
            self._problem = ""
        return self._opened

    def observe(self, metrics: Metrics) -> None:
        """See `Store.observe`. A call of this store takes no longer than a file's read or write."""

    def problems(self) -> tuple[str, ...]:
        """See `Store.problems`."""
        return (self._problem,) if self._problem else ()

    async def _parts(self) -> Opened:
        """The open store; if it could not be opened before, it is tried again. Raises UnavailableError."""
        if self._closed:
            raise UnavailableError(f"store {self._options.path} is closed in this process")
        if self._opened is None:  # one thread opens, so that two calls at once do not open it twice
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._open)
        return self._opened

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of `transaction` in the reading thread."""
        opened = await self._parts()
        return await asyncio.get_running_loop().run_in_executor(self._reader, opened.read, function, *arguments)

    async def _write(self, operation: Operation) -> Object:
        return await (await self._parts()).writer.run(operation)

    async def list(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> ObjectList:
        """See `Store.list`; ordered by namespace and name."""
        return await self._read(transaction.read_all, Wanted(kind, namespace, fields, labels))

    async def pages(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> AsyncIterator[ObjectList]:
        """See `Store.pages`. Memory is no matter on one machine: all is one page."""
        yield await self.list(kind, namespace, fields, labels)

    async def watch(
        self,
        kind: Kind,
        since: str,
        namespace: str | None = None,
        fields: Selection | None = None,
        labels: Selection | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """See `Store.watch`. While only others' objects change there is a bookmark once a minute."""
        if not since.isascii() or not since.isdigit():
            raise InvalidError(f"revision {since!r} is not a number: take it from a list or an event of this store")
        after, told = int(since), time.monotonic()
        wanted = Wanted(kind, namespace, fields, labels)
        wakeups = (await self._parts()).wakeups
        try:
            wakeups.listen()
        except OSError as error:
            raise UnavailableError(f"store {self._options.path} can't be watched: {error}") from error
        with wakeups.bell(resource(kind)) as bell:
            while True:
                bell.clear()
                events, reached, more = await self._read(transaction.read_changes, wanted, after)
                for event in events:
                    yield event
                if events:
                    told = time.monotonic()
                elif reached != after and time.monotonic() - told > _BOOKMARK_SECONDS:
                    told = time.monotonic()
                    yield WatchEvent(WatchType.BOOKMARK, {}, str(reached))
                after = reached
                if not more:
                    # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the bell.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._options.poll):
                            await bell.wait()

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """See `Store.get`."""
        found = await self._read(transaction.read, kind, ObjectKey(namespace, name))
        if found is None:
            raise _not_found(kind, namespace, name)
        return decoder(kind.fields).decode(found)

    async def create(self, obj: Object) -> Object:
        """See `Store.create`. A status is not taken over if the kind has a status of its own: as in an API server."""
        kind, obj = self._checked(obj, generate=True)

        def operation(writing: Writing) -> Object:
            meta = obj["metadata"]
            namespace, wanted = meta.get("namespace", ""), meta.get("name", "")
            for _ in range(_NAME_TRIES):
                name = wanted or objects.generated_name(meta["generateName"])
                if writing.read(kind, ObjectKey(namespace, name)) is None:
                    stored = writing.write(kind, objects.created(kind, obj, name), None)
                    if kind == EVENT:
                        writing.trim(kind, self._options.events)
                    return stored
                if wanted:
                    break
            raise AlreadyExistsError(f"{objects.where(kind, namespace, name)} already exists")

        return await self._write(operation)

    async def update(self, obj: Object) -> Object:
        """See `Store.update`. An update that changes nothing makes no revision."""
        return await self._change(obj, objects.updated)

    async def update_status(self, obj: Object) -> Object:
        """See `Store.update_status`. An update that changes nothing makes no revision."""
        return await self._change(obj, objects.status_updated)

    async def patch(self, kind: Kind, changes: Object, status: bool = False) -> Object:
        """See `Store.patch`. A patch that changes nothing makes no revision."""
        changes, key = _copied(kind, changes), objects.named(kind, changes)

        def step(_: Kind, old: Object, given: Object) -> Object:
            objects.check_preconditions(kind, old, given["metadata"])
            return self._stepped(kind, old, merging.patched(kind, old, given, status), status)

        return await self._write(lambda writing: _changed(writing, kind, key, changes, step))

    async def apply(self, obj: Object, owner: str, status: bool = False) -> Object:
        """See `Store.apply`. What is applied again makes no revision."""
        kind, obj = self._checked(obj)
        key = object_key(obj)

        def step(_: Kind, old: Object, given: Object) -> Object:
            return self._stepped(kind, old, merging.applied(kind, old, given, owner, status), status)

        def operation(writing: Writing) -> Object:
            if status or writing.read(kind, key) is not None:
                return _changed(writing, kind, key, obj, step)
            first = objects.created(kind, obj, key.name)
            return writing.write(kind, merging.applied(kind, first, obj, owner, status=False), None)

        return await self._write(operation)

    @staticmethod
    def _stepped(kind: Kind, old: Object, new: Object, status: bool) -> Object:
        """The next state for what a merge has come to."""
        objects.check_shape(kind, new)
        owned = new["metadata"].get("managedFields")
        result = (objects.status_updated if status else objects.updated)(kind, old, new)
        return {**result, "metadata": {**result["metadata"], "managedFields": owned}} if owned else result

    async def _change(self, obj: Object, step: _Step) -> Object:
        kind, obj = self._checked(obj)
        key = object_key(obj)
        return await self._write(lambda writing: _changed(writing, kind, key, obj, step))

    async def delete(self, kind: Kind, name: str, namespace: str = "", uid: str = "") -> Object:
        """See `Store.delete`. The answer is the last state, or the state while finalizers are waited for."""

        def operation(writing: Writing) -> Object:
            old = writing.read(kind, ObjectKey(namespace, name))
            if old is None:
                raise _not_found(kind, namespace, name)
            objects.check_preconditions(kind, old, {"uid": uid})
            if not old["metadata"].get("finalizers"):
                return writing.remove(kind, old, old)
            if "deletionTimestamp" in old["metadata"]:
                return old
            return writing.write(kind, objects.deletion_marked(old), old)

        return await self._write(operation)

    def _checked(self, obj: Object, generate: bool = False) -> tuple[Kind, Object]:
        """Kind and a copy of an object from outside. Raises InvalidError."""
        if not isinstance(obj, dict):
            raise InvalidError(f"an object must be a map, not {type(obj).__name__}")
        kind = self._kinds.get((str(obj.get("apiVersion")), str(obj.get("kind"))))
        if kind is None:
            known = ", ".join(sorted(f"{version} {name}" for version, name in self._kinds))
            raise InvalidError(f"unknown kind {obj.get('apiVersion')} {obj.get('kind')}; known are: {known}")
        copied = _copied(kind, obj)
        objects.check_shape(kind, copied, generate)
        return kind, copied

    async def close(self) -> None:
        """See `Store.close`. What was asked for before is finished first."""
        if self._closed:
            return
        self._closed = True
        if self._opened is not None:
            await asyncio.get_running_loop().run_in_executor(self._reader, self._opened.writer.close)
            self._reader.shutdown()
            self._opened.close()
        else:
            self._reader.shutdown()


def _changed(writing: Writing, kind: Kind, key: ObjectKey, given: Object, step: _Step) -> Object:
    """Bring an object to its next state, which may be its end."""
    old = writing.read(kind, key)
    if old is None:
        raise _not_found(kind, *key)
    new = step(kind, old, given)
    if objects.is_finished(new):
        return writing.remove(kind, new, old)
    return old if new == old else writing.write(kind, new, old)


def _copied(kind: Kind, obj: Object) -> Object:
    """A copy of what came from outside. Raises InvalidError."""
    try:
        return _copy(obj)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidError(f"{kind.kind}: the object can't be written as JSON: {error}") from None


def _copy(obj: Object) -> Object:
    return decoder(()).decode(msgspec.json.encode(obj))


def _not_found(kind: Kind, namespace: str, name: str) -> StoreError:
    return NotFoundError(f"{objects.where(kind, namespace, name)} not found")
