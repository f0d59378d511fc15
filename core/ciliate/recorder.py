"""Kubernetes Events: a sentence about an object, for those who look at it with `kubectl describe`.

There is one Event for each object, type and reason; what recurs raises its count and replaces its message. Writing
never holds anybody up: what can't be written now is written later, and beyond a bound it is counted and left out.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from ciliate.store import AlreadyExistsError, Kind, NotFoundError, Object, Store, StoreError

log = structlog.get_logger("recorder")
EVENT = Kind("v1", "Event", "events", True, ("ev",), has_status=False)
NORMAL, WARNING = "Normal", "Warning"
KNOWN_MOST = 1024
"""Events that are remembered, to be counted up; of more, the one that was silent for longest is begun anew."""
PAUSE_FIRST = 5.0
PAUSE_MOST = 300.0
"""Seconds between two writes of one Event; doubled after each."""
BETWEEN_WRITES = 0.1
"""Seconds between the writes of any two Events beyond a burst."""
BURST = 20
MESSAGE_MOST = 1024


class _Key(NamedTuple):
    kind: str
    namespace: str
    name: str
    uid: str
    type: str
    reason: str


@dataclass
class _Event:
    about: dict[str, str]
    name: str  # of the Event object
    first: str
    pause: float
    message: str = ""
    last: str = ""
    count: int = 0
    written: int = 0  # the count that the store has
    next_write: float = 0.0


@dataclass
class Recorder:
    """Takes sentences at any moment and writes them when `run` comes to it."""

    store: Store
    component: str  # who says it, as ciliate-agent
    instance: str  # the node, or the operator's name
    pause: float = PAUSE_FIRST
    lost: int = 0
    _known: dict[_Key, _Event] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def warn(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        """Say what is wrong with an object (its kind, apiVersion and metadata are looked at). reason: in CamelCase."""
        self.record(obj, WARNING, reason, message)

    def note(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        """Say what has happened to an object."""
        self.record(obj, NORMAL, reason, message)

    def record(self, obj: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """See `warn` and `note`."""
        meta = obj["metadata"]
        about = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": meta["name"]}
        about |= {key: meta[key] for key in ("namespace", "uid") if meta.get(key)}
        key = _Key(about["kind"], about.get("namespace", ""), about["name"], about.get("uid", ""), type_, reason)
        event = self._known.pop(key, None)
        if event is None:
            if len(self._known) >= KNOWN_MOST and not self._forget_one():
                self.lost += 1
                return
            event = _Event(about, self._name(key), _now(), self.pause)
        self._known[key] = event  # at the end: the first is the one that was silent for longest
        event.message, event.last = message[:MESSAGE_MOST], _now()
        event.count += 1
        self._wake.set()

    def _name(self, key: _Key) -> str:
        """The Event's: the same in every life of this process."""
        text = "\n".join([*key, self.component, self.instance])
        return f"{key.name[:200]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _forget_one(self) -> bool:
        for key, event in self._known.items():
            if event.written == event.count:
                del self._known[key]
                return True
        return False

    async def run(self) -> None:
        """Write what is due, for ever."""
        allowance, at = float(BURST), time.monotonic()
        while True:
            self._wake.clear()
            now = time.monotonic()
            allowance, at = min(BURST, allowance + (now - at) / BETWEEN_WRITES), now
            due = [(key, event) for key, event in self._known.items() if event.written < event.count]
            ready = next(((key, event) for key, event in due if event.next_write <= now), None)
            if ready is not None and allowance >= 1:
                allowance -= 1
                await self._write(*ready)
                continue
            if ready is not None:
                await asyncio.sleep(BETWEEN_WRITES)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min((event.next_write - now for _, event in due), default=None)):
                    await self._wake.wait()

    async def _write(self, key: _Key, event: _Event) -> None:
        count = event.count
        event.next_write, event.pause = time.monotonic() + event.pause, min(2 * event.pause, PAUSE_MOST)
        try:
            if event.written:
                with suppress(NotFoundError):  # the API server drops Events after an hour
                    await self.store.update(self._object(key, event))
                    event.written = count
                    return
            with suppress(AlreadyExistsError):
                await self.store.create(self._object(key, event))
                event.written = count
                return
            await self._take_over(key, event)
        except StoreError as error:
            log.warning("event not written", about=event.about, reason=key.reason, problem=str(error))

    async def _take_over(self, key: _Key, event: _Event) -> None:
        """Count on where an earlier life of this process has stopped."""
        found = await self.store.get(EVENT, event.name, event.about.get("namespace", "default"))
        counted = found.get("count")
        event.count += counted if isinstance(counted, int) else 0
        event.first = str(found.get("firstTimestamp") or event.first)
        count = event.count
        await self.store.update(self._object(key, event))
        event.written = count

    def _object(self, key: _Key, event: _Event) -> Object:
        namespace = event.about.get("namespace", "default")
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": event.name, "namespace": namespace},
            "involvedObject": event.about,
            "type": key.type,
            "reason": key.reason,
            "message": event.message,
            "count": event.count,
            "firstTimestamp": event.first,
            "lastTimestamp": event.last,
            "source": {"component": self.component, "host": self.instance},
            "reportingComponent": self.component,
            "reportingInstance": self.instance,
        }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
