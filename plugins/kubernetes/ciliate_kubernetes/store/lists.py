"""Lists: as a stream, where the server can do that, else page by page. Decoded in slices, never all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import msgspec
import structlog
from ciliate.store import (
    InvalidError,
    Object,
    ObjectKey,
    ObjectList,
    UnavailableError,
    WatchEvent,
    WatchType,
    object_key,
)

from ciliate_kubernetes.store.config import Options
from ciliate_kubernetes.store.events import is_initial_end, parse_event
from ciliate_kubernetes.store.lines import SLICE
from ciliate_kubernetes.store.requests import Request, Requests
from ciliate_kubernetes.store.resources import Wanted, asked, target

log = structlog.get_logger("store")

_STREAM_PATIENCE = 10.0
"""Seconds for which a streamed list may be silent before it is whole."""


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[msgspec.Raw] | None = None


_list = msgspec.json.Decoder(_List)


class CantStreamError(Exception):
    """This API server, or its etcd, does not give lists as streams."""


@dataclass
class _Page:
    """What of a streamed list has not been given yet."""

    items: dict[ObjectKey, Object] = field(default_factory=dict)
    gone: set[ObjectKey] = field(default_factory=set)

    def take_in(self, event: WatchEvent) -> None:
        """An object of the list, or what happened to one while it was sent."""
        key = object_key(event.object)
        if event.type is WatchType.DELETED:
            self.items.pop(key, None)
            self.gone.add(key)
        else:
            self.items[key] = event.object
            self.gone.discard(key)

    def given(self, revision: str) -> ObjectList:
        """All of it."""
        return ObjectList(list(self.items.values()), revision, tuple(self.gone))


class Lists:
    """Lists of one process."""

    def __init__(self, requests: Requests, options: Options) -> None:
        self._requests = requests
        self._options = options
        self._streams = options.streaming_lists

    async def pages(self, wanted: Wanted) -> AsyncGenerator[ObjectList, None]:
        """Pages of all that match. Raises StoreError; ExpiredError if it must begin anew."""
        refused: CantStreamError | None = None
        if self._streams:
            try:
                async for page in self._streamed(wanted):
                    yield page
            except CantStreamError as error:
                refused = error
            else:
                return
        async for page in self._paged(wanted):
            if refused is not None and self._streams:  # and not the request itself that was refused
                log.info("this API server streams no lists; they are read page by page", reason=str(refused))
                self._streams = False
            yield page

    async def _streamed(self, wanted: Wanted) -> AsyncGenerator[ObjectList, None]:
        """Raises CantStreamError before anything was given, or after parts of it, which do no harm."""
        query = {
            **wanted.query,
            "watch": "1",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._options.request_timeout)),
        }
        request = Request("GET", target(wanted.path, query), asked("watch", wanted.kind))
        try:
            async with self._requests.stream(request) as lines:
                page, first = _Page(), True
                while True:
                    line = await _next(lines)
                    if line is None:
                        raise UnavailableError(f"the list of {wanted.kind.plural} ended before it was whole")
                    try:
                        event = parse_event(wanted, line)
                    except UnavailableError as error:
                        if first:  # how a server says that its etcd can't tell when all is there
                            raise CantStreamError(str(error)) from error
                        raise
                    first = False
                    if is_initial_end(event):
                        yield page.given(event.revision)
                        return
                    if event.type is not WatchType.BOOKMARK:
                        page.take_in(event)
                    if len(page.items) >= self._options.page:
                        yield page.given("")
                        page = _Page()
        except InvalidError as error:
            raise CantStreamError(str(error)) from error

    async def _paged(self, wanted: Wanted) -> AsyncGenerator[ObjectList, None]:
        query = {**wanted.query, "limit": str(self._options.page)}
        while True:
            request = Request("GET", target(wanted.path, query), asked("list", wanted.kind))
            try:
                found = _list.decode(await self._requests.call(request))
            except msgspec.MsgspecError as error:
                raise UnavailableError(f"the API server sent no list of {wanted.kind.plural}: {error}") from error
            yield ObjectList(await _decoded(wanted, found.items or []), found.metadata.resource_version)
            if not found.metadata.continue_:
                return
            query["continue"] = found.metadata.continue_


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    """The next line of a list, None at its end. Raises CantStreamError if the server does not go on."""
    try:
        async with asyncio.timeout(_STREAM_PATIENCE):
            return await anext(lines, None)
    except TimeoutError:
        raise CantStreamError(f"nothing came for {_STREAM_PATIENCE:g} s") from None


async def _decoded(wanted: Wanted, items: list[msgspec.Raw]) -> list[Object]:
    """The objects of a page that match; others get their turn meanwhile."""
    objects, turn = [], time.monotonic()
    decode = wanted.decoder.decode
    for raw in items:
        obj = decode(raw)
        if wanted.passes(obj):
            objects.append(obj)
        if time.monotonic() - turn > SLICE:
            await asyncio.sleep(0)
            turn = time.monotonic()
    return objects
