"""The events of a watch, as the API server sends them: one JSON object a line."""

from __future__ import annotations

from typing import Any

import msgspec
from ciliate.store import UnavailableError, WatchEvent, WatchType

from ciliate_kubernetes.store.errors import Status, of_status
from ciliate_kubernetes.store.resources import Wanted, asked

_INITIAL_END = "k8s.io/initial-events-end"


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Metadata(msgspec.Struct):
    resourceVersion: str  # noqa: N815, as the API server spells it
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct):
    metadata: _Metadata


_event = msgspec.json.Decoder(_Event)
_bookmark = msgspec.json.Decoder(_Bookmark)
_status = msgspec.json.Decoder(Status)
_INITIAL: dict[str, Any] = {"initial": "end"}


def is_initial_end(event: WatchEvent) -> bool:
    """Whether this is the bookmark after the last object of a streamed list."""
    return event.object is _INITIAL


def parse_event(wanted: Wanted, line: bytes) -> WatchEvent:
    """One event. Raises the error that the server sends in one, and UnavailableError if a line is none."""
    try:
        event = _event.decode(line)
        if event.type == "ERROR":
            status = _status.decode(event.object)
            raise of_status(asked("watch", wanted.kind), status, status.code)
        if event.type == "BOOKMARK":
            metadata = _bookmark.decode(event.object).metadata
            ended = (metadata.annotations or {}).get(_INITIAL_END) == "true"
            return WatchEvent(WatchType.BOOKMARK, _INITIAL if ended else {}, metadata.resourceVersion)
        obj: dict[str, Any] = wanted.decoder.decode(event.object)
        kind_of_change = WatchType(event.type)
        if not wanted.passes(obj):
            kind_of_change = WatchType.DELETED  # it may have matched before: better once too often than not at all
        return WatchEvent(kind_of_change, obj, obj["metadata"]["resourceVersion"])
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"a watch of {wanted.kind.plural} sent what is no event: {error}") from error
