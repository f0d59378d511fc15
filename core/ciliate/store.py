"""The store interface: objects in Kubernetes form, wherever they are kept.

A driver (group `ciliate.store`) implements `Store`. Objects are plain dicts with apiVersion, kind, metadata, spec and
status, as JSON gives them. Plugins can't tell which driver they run on.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of object. `plural` is its resource name."""

    api_version: str  # v1, cilium.io/v2
    kind: str
    plural: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    has_status: bool = True


class ObjectKey(NamedTuple):
    """An object's address within its kind; namespace "" for cluster-scoped kinds."""

    namespace: str
    name: str


def object_key(obj: Mapping[str, Any]) -> ObjectKey:
    """The key of an object."""
    meta = obj["metadata"]
    return ObjectKey(meta.get("namespace", ""), meta["name"])


class StoreError(Exception):
    """A refusal of the store; the message says what, where and how to mend it."""


class NotFoundError(StoreError):
    """There is no such object."""


class AlreadyExistsError(StoreError):
    """There is one of that name already."""


class ConflictError(StoreError):
    """The object has changed since `metadata.resourceVersion`, or has another uid: read it again."""


class InvalidError(StoreError):
    """The object is malformed: no name, a bad name, an unknown kind, no namespace where one is needed."""


class ExpiredError(StoreError):
    """The revision to watch from is no longer kept: list again."""


class UnavailableError(StoreError):
    """The store does not answer, is full, or is read-only; worth another try."""


class WatchType(enum.Enum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True)
class WatchEvent:
    """One change. `object` is the state after it (of a deletion: the last state; of a bookmark: empty)."""

    type: WatchType
    object: Object
    revision: str


@dataclass(frozen=True)
class ObjectList:
    """All objects of a kind at one revision."""

    items: list[Object]
    revision: str


class Store(Protocol):
    """What a driver offers. Every method may raise UnavailableError."""

    async def list(
        self, kind: Kind, namespace: str | None = None, fields: Mapping[str, str] | None = None
    ) -> ObjectList:
        """Objects of a kind, of one namespace or (None) of all.

        fields: paths and values that must be equal, as {"spec.nodeName": "node1"}.
        """

    def watch(
        self, kind: Kind, since: str, namespace: str | None = None, fields: Mapping[str, str] | None = None
    ) -> AsyncIterator[WatchEvent]:
        """Changes after a revision, in order, without end. Raises ExpiredError if they are no longer kept.

        An object that ceases to match `fields` is reported as DELETED.
        """

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """One object. Raises NotFoundError."""

    async def create(self, obj: Object) -> Object:
        """Add an object; the answer has uid, resourceVersion, generation 1, creationTimestamp.

        metadata.generateName is honoured. Raises AlreadyExistsError, InvalidError.
        """

    async def update(self, obj: Object) -> Object:
        """Replace all but status; generation grows if spec changed.

        With metadata.resourceVersion set, raises ConflictError unless it is current. An object that is being deleted
        goes away with its last finalizer. Raises NotFoundError.
        """

    async def update_status(self, obj: Object) -> Object:
        """Replace status and nothing else; the same rules."""

    async def delete(self, kind: Kind, name: str, namespace: str = "", uid: str = "") -> Object:
        """Delete, or, while there are finalizers, set deletionTimestamp. Raises NotFoundError, ConflictError (uid)."""

    async def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True)
class ObjectChanges:
    """A batch from `follow`. `complete` is False only while the first list is not yet whole."""

    upserts: list[Object] = field(default_factory=list)
    deletes: list[ObjectKey] = field(default_factory=list)
    complete: bool = True


async def follow(
    store: Store,
    kind: Kind,
    namespace: str | None = None,
    fields: Mapping[str, str] | None = None,
    retry: float = 0.5,
) -> AsyncIterator[ObjectChanges]:
    """All objects of a kind, then every change, for ever: lists, watches, lists again when told to.

    The first batch is the whole list. After an expired watch or an outage the difference to what was known is given, so
    that a reader never sees a gap. Outages are waited out, `retry` seconds apart, doubling to 10 s.
    """
    known: dict[ObjectKey, str] = {}
    delay = retry
    first = True
    while True:
        try:
            listed = await store.list(kind, namespace, fields)
            changes = _difference(known, listed)
            if first or changes.upserts or changes.deletes:
                yield changes
            first, delay = False, retry
            async with aclosing(store.watch(kind, listed.revision, namespace, fields)) as events:  # type: ignore[type-var]
                async for event in events:
                    if event.type is WatchType.BOOKMARK:
                        continue
                    key = object_key(event.object)
                    if event.type is WatchType.DELETED:
                        known.pop(key, None)
                        yield ObjectChanges(deletes=[key])
                    else:
                        known[key] = event.object["metadata"]["resourceVersion"]
                        yield ObjectChanges(upserts=[event.object])
        except ExpiredError:
            continue
        except UnavailableError:
            await asyncio.sleep(delay)
            delay = min(2 * delay, 10.0)


def _difference(known: dict[ObjectKey, str], listed: ObjectList) -> ObjectChanges:
    """What a fresh list changes in `known`, which is brought up to date."""
    current = {object_key(obj): obj for obj in listed.items}
    deletes = [key for key in known if key not in current]
    upserts = [o for key, o in current.items() if known.get(key) != o["metadata"]["resourceVersion"]]
    known.clear()
    known.update({key: o["metadata"]["resourceVersion"] for key, o in current.items()})
    return ObjectChanges(upserts, deletes)
