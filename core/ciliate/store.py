"""The store interface: objects in Kubernetes form, wherever they are kept.

A driver (group `ciliate.store`) implements `Store`. Objects are plain dicts with apiVersion, kind, metadata, spec and
status, as JSON gives them. Plugins can't tell which driver they run on.
"""

from __future__ import annotations

import enum
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ciliate.backoff import Backoff

if TYPE_CHECKING:
    from ciliate.metrics import Metrics

Object = dict[str, Any]
Selection = Mapping[str, str]
"""Of objects: paths of fields (as "spec.nodeName") or keys of labels, and the values that they must have."""


@dataclass(frozen=True)
class Kind:
    """A kind of object. `plural` is its resource name."""

    api_version: str  # v1, cilium.io/v2
    kind: str
    plural: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    has_status: bool = True
    fields: tuple[str, ...] = field(default=(), compare=False)
    """Paths of what a reader wants (see `ciliate.fields`); empty: everything."""

    def only(self, *fields: str) -> Kind:
        """This kind for a reader that needs no more than some fields, as "metadata.labels", "spec.containers[].ports".

        What list, pages, watch, get and `follow` then give are parts of objects: beside these fields the metadata that
        name a revision of an object, and neither apiVersion nor kind, so that no store takes one for the whole. Write
        with `Store.patch` or `Store.apply` what you have read so.
        """
        return replace(self, fields=fields)


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
    """The store does not answer, is full, or is read-only; worth another try, after `retry_after` seconds at least."""

    retry_after: float = 0.0


class DeniedError(UnavailableError):
    """The store refuses this process: its credentials, or a right that it lacks. It may be given one."""


class MissingKindError(UnavailableError):
    """The store does not know this kind yet: somebody registers it, or has to upgrade."""


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
    """All objects of a kind at one revision; or a page of them, and which of earlier pages are gone meanwhile."""

    items: list[Object]
    revision: str
    gone: tuple[ObjectKey, ...] = ()


class Store(Protocol):
    """What a driver offers. Every method may raise UnavailableError.

    A driver's class is called with its part of the configuration and the kinds that plugins add. Its attribute
    `options` is the struct (msgspec) of that part: the core checks it, and names the origin of what is wrong.
    """

    async def list(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> ObjectList:
        """Objects of a kind, of one namespace or (None) of all, that have these fields and labels."""

    def pages(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> AsyncIterator[ObjectList]:
        """The same, some hundred at a time, for readers that need not have all of them at once; at least one page.

        Their revision is that of the last page. Raises ExpiredError if a reader takes too long over them.
        """

    def watch(
        self,
        kind: Kind,
        since: str,
        namespace: str | None = None,
        fields: Selection | None = None,
        labels: Selection | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after a revision, in order, without end. Raises ExpiredError if they are no longer kept.

        An object that ceases to match is reported as DELETED; so may one be that has never matched. Outages may be
        waited out without a word.
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
        """Replace status and nothing else; the same rules. Raises InvalidError if the kind has no status."""

    async def patch(self, kind: Kind, changes: Object, status: bool = False) -> Object:
        """Merge changes into an object (RFC 7386: null removes a key, a list replaces a list); all else stays.

        `metadata.name` and `namespace` of the changes say which object. With resourceVersion or uid there, raises
        ConflictError unless they are current. status: only `changes["status"]` counts, without it all but that (of a
        kind that has no status of its own: all).
        Raises NotFoundError, InvalidError.
        """

    async def apply(self, obj: Object, owner: str, status: bool = False) -> Object:
        """Make an object have what `obj` says, whoever said otherwise; what `owner` said last and says no more goes.

        What others have set stays. A list is one value. The object is created if there is none. owner: a word, for
        each part of a program that says something of its own. status: only `obj["status"]` counts, and the object
        must be there (NotFoundError). Raises InvalidError.
        """

    async def delete(self, kind: Kind, name: str, namespace: str = "", uid: str = "") -> Object:
        """Delete, or, while there are finalizers, set deletionTimestamp. Raises NotFoundError, ConflictError (uid)."""

    def observe(self, metrics: Metrics) -> None:
        """Count in a process's metrics what is asked of the store, if that is worth a metric."""

    def problems(self) -> tuple[str, ...]:
        """What the store can't do at present and goes on trying, a sentence each; empty: all is well."""

    async def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True)
class ObjectChanges:
    """A batch from `follow`. `complete` is False only while the first list is not yet whole."""

    upserts: list[Object] = field(default_factory=list)
    deletes: list[ObjectKey] = field(default_factory=list)
    complete: bool = True


MOST_PAUSE = 10.0
"""Seconds between two tries of `follow` at most."""
SOUND_AFTER = 5.0
"""Seconds that a watch must have lasted for the next try to come as soon as after the first failure."""


async def follow(
    store: Store,
    kind: Kind,
    namespace: str | None = None,
    fields: Selection | None = None,
    labels: Selection | None = None,
    retry: float = 0.5,
) -> AsyncIterator[ObjectChanges]:
    """All objects of a kind, then every change, for ever: lists, watches, lists again when told to.

    The first batches are the list; the last of them is the first that is `complete`. After an expired watch or an
    outage the difference to what was known is given, so that a reader never sees a gap. Outages are waited out, about
    `retry` seconds at first, twice as long each time up to 10 s.
    """
    known: dict[ObjectKey, str] = {}
    backoff = Backoff(retry, MOST_PAUSE)
    complete = False
    pending: list[Object] = []  # in `known`, and not yet given: the last page's go together with what is gone
    while True:
        began, at_least = time.monotonic(), 0.0
        try:
            seen: set[ObjectKey] = set()
            async with aclosing(store.pages(kind, namespace, fields, labels)) as pages:  # type: ignore[type-var]
                async for page in pages:
                    if pending:
                        yield ObjectChanges(pending, complete=complete)
                    pending, revision = _unknown(known, page.items, seen), page.revision
                    seen.difference_update(page.gone)
                    del page  # else all of the last one stays in memory until the list is read again
            gone = [key for key in known if key not in seen]
            for key in gone:
                del known[key]
            if pending or gone or not complete:
                yield ObjectChanges(pending, gone)
            complete, pending, began = True, [], time.monotonic()
            del seen, gone
            async with aclosing(store.watch(kind, revision, namespace, fields, labels)) as events:  # type: ignore[type-var]
                async for event in events:
                    if (changes := _change(known, event)) is not None:
                        yield changes
        except ExpiredError:
            pass
        except UnavailableError as error:
            at_least = error.retry_after
        if complete and time.monotonic() - began > SOUND_AFTER:
            backoff.reset()
        await backoff.wait(at_least)


def _unknown(known: dict[ObjectKey, str], items: list[Object], seen: set[ObjectKey]) -> list[Object]:
    """Those of a page that are new or have changed; `known` is brought up to date, `seen` gets all of the page."""
    upserts = []
    for obj in items:
        key, revision = object_key(obj), obj["metadata"]["resourceVersion"]
        seen.add(key)
        if known.get(key) != revision:
            known[key] = revision
            upserts.append(obj)
    return upserts


def _change(known: dict[ObjectKey, str], event: WatchEvent) -> ObjectChanges | None:
    """What an event changes for a reader; None: nothing."""
    if event.type is WatchType.BOOKMARK:
        return None
    key = object_key(event.object)
    if event.type is WatchType.DELETED:
        return ObjectChanges(deletes=[key]) if known.pop(key, None) is not None else None
    known[key] = event.object["metadata"]["resourceVersion"]
    return ObjectChanges(upserts=[event.object])
