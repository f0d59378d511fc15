"""`KubernetesStore`: the store interface over an API server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from ciliate.fields import decoder
from ciliate.metrics import Metrics
from ciliate.model.kinds import KINDS
from ciliate.store import (
    ConflictError,
    InvalidError,
    Kind,
    MissingKindError,
    Object,
    ObjectKey,
    ObjectList,
    Selection,
    UnavailableError,
    WatchEvent,
    object_key,
)

from ciliate_kubernetes.store.conditions import Conditions
from ciliate_kubernetes.store.config import Options, parse_options
from ciliate_kubernetes.store.groups import missing
from ciliate_kubernetes.store.lists import Lists
from ciliate_kubernetes.store.requests import APPLY_PATCH, JSON, MERGE_PATCH, Calls, Request, Requests
from ciliate_kubernetes.store.resources import Wanted, asked, path, resource, target
from ciliate_kubernetes.store.watches import Watches

MANAGER = "ciliate"
"""Who has written, as the API server notes it; what is applied is noted as `ciliate-<owner>`'s."""
_TRIES = 10
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "DELETE": "delete"}
_SET_BY_SERVER = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp"}
    | {"deletionGracePeriodSeconds", "generateName"}
)


class KubernetesStore:
    """A cluster's objects (see `ciliate.store.Store`). Everything happens in the caller's event loop."""

    options = Options

    def __init__(self, options: Mapping[str, Any], kinds: Sequence[Kind]) -> None:
        """options: see `config.Options`. kinds: what is accepted beyond `ciliate.model.kinds`. Raises InvalidError.

        Nothing is asked of the API server yet. That it can't be reached is said by every call, in `problems` and in
        the log, while `ciliate.store.follow` goes on trying.
        """
        self._options = parse_options(options)
        self._kinds = {(kind.api_version, kind.kind): kind for kind in (*KINDS, *kinds)}
        self._requests = Requests(self._options)
        self._conditions = Conditions()
        self._older: set[str] = set()  # resources that are selected here, since the API server can't
        self._lists = Lists(self._requests, self._options)
        self._watches = Watches(self._requests, self._options, self._conditions)

    async def list(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> ObjectList:
        """See `Store.list`."""
        found: dict[ObjectKey, Object] = {}
        revision = ""
        async with aclosing(self.pages(kind, namespace, fields, labels)) as pages:
            async for page in pages:
                for key in page.gone:
                    found.pop(key, None)
                found.update({object_key(obj): obj for obj in page.items})
                revision = page.revision
        return ObjectList([found[key] for key in sorted(found)], revision)

    async def pages(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> AsyncGenerator[ObjectList, None]:
        """See `Store.pages`."""
        wanted = self._wanted(kind, namespace, fields, labels)
        try:
            async with aclosing(self._lists.pages(wanted)) as pages:
                async for page in pages:
                    yield page
        except InvalidError:
            if not self._is_older(wanted):
                raise
            async with aclosing(self.pages(kind, namespace, fields, labels)) as pages:
                async for page in pages:
                    yield page
        except UnavailableError as error:
            raise await self._failed(kind, error) from error
        self._conditions.worked(resource(kind))

    def _wanted(self, kind: Kind, namespace: str | None, fields: Selection | None, labels: Selection | None) -> Wanted:
        return Wanted(kind, namespace, fields, labels, resource(kind) in self._older)

    def _is_older(self, wanted: Wanted) -> bool:
        """Whether what the API server has refused may have been a selector that an older definition lacks."""
        if wanted.may_be_refused:
            self._older.add(resource(wanted.kind))
        return wanted.may_be_refused

    async def watch(
        self,
        kind: Kind,
        since: str,
        namespace: str | None = None,
        fields: Selection | None = None,
        labels: Selection | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `Store.watch`. Outages are waited out; while nothing happens there is a bookmark about once a minute."""
        if not since.isascii() or not since.isdigit():
            raise InvalidError(f"revision {since!r} is not a number: take it from a list or an event of this store")
        try:
            wanted = self._wanted(kind, namespace, fields, labels)
            async with aclosing(self._watches.events(wanted, since)) as events:
                async for event in events:
                    yield event
        except UnavailableError as error:
            raise await self._failed(kind, error) from error

    async def _failed(self, kind: Kind, error: UnavailableError) -> UnavailableError:
        """What to raise when a kind can't be had; it is noted."""
        if isinstance(error, MissingKindError):
            error = await missing(self._requests, kind, error)
        self._conditions.failed(resource(kind), str(error))
        return error

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """See `Store.get`."""
        return decoder(kind.fields).decode(await self._send("GET", kind, ObjectKey(namespace, name)))

    async def create(self, obj: Object) -> Object:
        """See `Store.create`."""
        kind = self._kind(obj)
        return await self._write("POST", kind, _key(kind, obj, generate=True), obj)

    async def update(self, obj: Object) -> Object:
        """See `Store.update`."""
        return await self._replace(obj)

    async def update_status(self, obj: Object) -> Object:
        """See `Store.update_status`."""
        return await self._replace(obj, "status")

    async def _replace(self, obj: Object, subresource: str = "") -> Object:
        kind = self._kind(obj)
        self._check_status(kind, subresource)
        key = _key(kind, obj)
        if obj["metadata"].get("resourceVersion"):
            return await self._write("PUT", kind, key, obj, subresource)
        _encoded(kind, obj)
        for attempt in range(_TRIES):  # most kinds are replaced only on the word of a revision
            current = await self.get(kind.only("metadata.uid"), key.name, key.namespace)
            meta = {**obj["metadata"], "resourceVersion": current["metadata"]["resourceVersion"]}
            try:
                return await self._write("PUT", kind, key, {**obj, "metadata": meta}, subresource)
            except ConflictError:
                if (
                    attempt == _TRIES - 1
                    or obj["metadata"].get("uid", current["metadata"]["uid"]) != current["metadata"]["uid"]
                ):
                    raise
        raise AssertionError("unreachable")

    async def patch(self, kind: Kind, changes: Object, status: bool = False) -> Object:
        """See `Store.patch`."""
        self._check_status(kind, "status" if status else "")
        key = _key(kind, changes)
        if status:
            body = {"metadata": changes["metadata"], "status": changes.get("status")}
        else:
            body = _but_status(kind, changes)
        return await self._write("PATCH", kind, key, body, "status" if status else "", MERGE_PATCH)

    async def apply(self, obj: Object, owner: str, status: bool = False) -> Object:
        """See `Store.apply`."""
        kind = self._kind(obj)
        self._check_status(kind, "status" if status else "")
        key = _key(kind, obj)
        naming = {"apiVersion": kind.api_version, "kind": kind.kind}
        if status:
            meta = {part: value for part, value in obj["metadata"].items() if part in ("name", "namespace")}
            body = {**naming, "metadata": meta, "status": obj.get("status") or {}}
        else:
            meta = {part: value for part, value in obj["metadata"].items() if part not in _SET_BY_SERVER}
            body = {**_but_status(kind, obj), **naming, "metadata": meta}
        manager = {"fieldManager": f"{MANAGER}-{owner}", "force": "true"}
        return await self._write("PATCH", kind, key, body, "status" if status else "", APPLY_PATCH, manager)

    async def delete(self, kind: Kind, name: str, namespace: str = "", uid: str = "") -> Object:
        """See `Store.delete`. The answer is the last state, or the state while somebody is waited for."""
        key = ObjectKey(namespace, name)
        for attempt in range(_TRIES):
            last = await self.get(kind, name, namespace)
            meant = uid or last["metadata"]["uid"]
            if meant != last["metadata"]["uid"]:
                raise ConflictError(
                    f"{resource(kind)} {_called(key)} has uid {last['metadata']['uid']}, not {meant}:"
                    " it was deleted and made anew; read it again"
                )
            how = {"preconditions": {"uid": meant}, "propagationPolicy": "Background"}
            try:
                answer = decoder(()).decode(await self._send("DELETE", kind, key, msgspec.json.encode(how)))
            except ConflictError:
                if uid or attempt == _TRIES - 1:
                    raise
                continue
            return answer if answer.get("kind") == kind.kind else last
        raise AssertionError("unreachable")

    async def _write(
        self,
        method: str,
        kind: Kind,
        key: ObjectKey,
        obj: Object,
        subresource: str = "",
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        query = {"fieldManager": MANAGER, **(query or {})}
        answer = await self._send(method, kind, key, _encoded(kind, obj), subresource, content_type, query)
        return decoder(()).decode(answer)

    async def _send(
        self,
        method: str,
        kind: Kind,
        key: ObjectKey,
        body: bytes | None = None,
        subresource: str = "",
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        place = path(kind, key.namespace, "" if method == "POST" else key.name, subresource)
        what = asked(_VERBS[method], kind, key.namespace, key.name, subresource)
        try:
            return await self._requests.call(Request(method, target(place, query or {}), what, body, content_type))
        except MissingKindError as error:
            if subresource and await self._is_known(kind, key):
                raise InvalidError(f"{kind.plural} have no {subresource} of their own: use update") from None
            raise await missing(self._requests, kind, error) from error

    async def _is_known(self, kind: Kind, key: ObjectKey) -> bool:
        """Whether the API server has an object. Raises StoreError."""
        try:
            await self._requests.call(
                Request("GET", path(kind, key.namespace, key.name), asked("get", kind, key.namespace, key.name))
            )
        except MissingKindError:
            return False
        return True

    def _kind(self, obj: Object) -> Kind:
        """The kind of an object from outside. Raises InvalidError."""
        if not isinstance(obj, dict):
            raise InvalidError(f"an object must be a map, not {type(obj).__name__}")
        kind = self._kinds.get((str(obj.get("apiVersion")), str(obj.get("kind"))))
        if kind is None:
            known = ", ".join(sorted(f"{version} {name}" for version, name in self._kinds))
            raise InvalidError(f"unknown kind {obj.get('apiVersion')} {obj.get('kind')}; known are: {known}")
        if not isinstance(obj.get("metadata"), dict):
            raise InvalidError(f"{kind.kind}: metadata is missing or not a map")
        return kind

    @staticmethod
    def _check_status(kind: Kind, subresource: str) -> None:
        if subresource and not kind.has_status:
            raise InvalidError(f"{kind.plural} have no status of their own: use update")

    def observe(self, metrics: Metrics) -> None:
        """See `Store.observe`."""
        self._requests.calls = Calls(metrics)

    def problems(self) -> tuple[str, ...]:
        """See `Store.problems`."""
        return self._conditions.sentences()

    async def close(self) -> None:
        """See `Store.close`."""
        await self._requests.close()


def _encoded(kind: Kind, obj: Object) -> bytes:
    try:
        return msgspec.json.encode(obj)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidError(f"{kind.kind}: the object can't be written as JSON: {error}") from None


def _key(kind: Kind, obj: Object, generate: bool = False) -> ObjectKey:
    """Which object is meant. Raises InvalidError: a request without a name would be about all of them.

    generate: a name that is to be generated will do.
    """
    meta = obj.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not name and generate and isinstance(meta, dict) and meta.get("generateName"):
        name = str(meta["generateName"])
    if not isinstance(name, str) or not name:
        raise InvalidError(f"{kind.kind}: metadata.name is missing, or no text")
    namespace = str(meta.get("namespace") or "") if isinstance(meta, dict) else ""
    if kind.namespaced and not namespace:
        raise InvalidError(f"{kind.kind} {name}: metadata.namespace is missing; {kind.plural} belong to a namespace")
    if namespace and not kind.namespaced:
        raise InvalidError(f"{kind.kind} {name}: metadata.namespace {namespace!r} given, but {kind.plural} have none")
    return ObjectKey(namespace, name)


def _called(key: ObjectKey) -> str:
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def _but_status(kind: Kind, obj: Object) -> Object:
    """An object without what is written by itself: the status of a kind that has one of its own."""
    return {part: value for part, value in obj.items() if part != "status" or not kind.has_status}
