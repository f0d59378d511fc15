"""Identities that no endpoint has: their numbers are free again after a while.

An identity that is found unused gets the annotation `io.cilium.heartbeat` with the time. Whoever takes it into use
takes the annotation away; the operator does so as well when it sees it used. What still has the same one after the
time-out, by the clock of the operator that leads all the while, is deleted.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from contextlib import suppress
from typing import Any

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_IDENTITY
from ciliate.store import ConflictError, NotFoundError, Object, UnavailableError

from ciliate_policy.allocator import HEARTBEAT, heartbeat, identity_of_object
from ciliate_policy.config import PolicyConfig

BETWEEN_WRITES = 0.02
"""Seconds: 3,000 a minute, as a brake on a cluster whose pods all go at once."""


class IdentityCollection:
    """Looks at all identities and endpoints once an interval."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config: PolicyConfig = context.config
        self._found: dict[str, tuple[str, float]] = {}  # by name: the annotation, and when it was seen first
        metrics = context.metrics
        self._entries = metrics.gauge(
            "cilium_operator_identity_gc_entries", "Identities at the last collection.", "status"
        )
        self._runs = metrics.counter("cilium_operator_identity_gc_runs", "Collections of identities.", "outcome")
        self._latency = metrics.gauge("cilium_operator_identity_gc_latency", "Seconds of the last one.", "outcome")

    async def run(self) -> None:
        """Collect, for ever; never if the interval is 0."""
        while self._config.identity_gc_interval > 0:
            began, outcome = time.monotonic(), "fail"
            try:
                await self.collect()
                outcome = "success"
            except UnavailableError as error:
                self._context.log.warning("identities not looked through", reason=str(error))
            finally:
                self._runs.labels(outcome).inc()
                self._latency.labels(outcome).set(time.monotonic() - began)
            await asyncio.sleep(self._config.identity_gc_interval)

    async def collect(self) -> None:
        """One look. Endpoints are listed after the identities: one made in between counts. Raises StoreError."""
        identities = (await self._context.store.list(CILIUM_IDENTITY)).items
        endpoints = (await self._context.store.list(CILIUM_ENDPOINT.only("status.identity"))).items
        if not endpoints:
            return  # nobody writes them, or the cluster is empty: either way nothing is known of what is in use
        used = {identity_in_use(endpoint) for endpoint in endpoints}
        deleted = 0
        present = {obj["metadata"]["name"] for obj in identities}
        self._found = {name: found for name, found in self._found.items() if name in present}
        for obj in identities:
            found = identity_of_object(obj)
            if found is None:
                self._context.recorder.warn(obj, "IdentityInvalid", malformed(obj))
                self._context.log.warning("identity is left alone", name=obj["metadata"]["name"], reason=malformed(obj))
                continue
            with suppress(ConflictError, NotFoundError):  # somebody else has looked after it
                deleted += await self._look(obj, found[0] in used)
        self._entries.labels("alive").set(len(identities) - deleted)
        self._entries.labels("deleted").set(deleted)

    async def _look(self, obj: Object, used: bool) -> bool:
        """Start or stop an identity's clock, or delete it; whether it was deleted."""
        since = unused_since(obj)
        if used:
            if since:
                await self._write(heartbeat(obj, None))
            return False
        if not since:
            await self._write(heartbeat(obj, datetime.datetime.now(datetime.UTC).isoformat()))
            return False
        name = obj["metadata"]["name"]
        found = self._found.setdefault(name, (since, time.monotonic()))
        if found[0] != since:
            found = self._found[name] = (since, time.monotonic())
        if time.monotonic() - found[1] < self._config.identity_heartbeat_timeout:
            return False
        current = await self._context.store.get(CILIUM_IDENTITY, name)
        if unused_since(current) != since:
            return False
        await self._context.store.delete(CILIUM_IDENTITY, name, uid=current["metadata"]["uid"])
        self._context.log.info("unused identity deleted", identity=name)
        await asyncio.sleep(BETWEEN_WRITES)
        return True

    async def _write(self, changes: Object) -> None:
        await self._context.store.patch(CILIUM_IDENTITY, changes)
        await asyncio.sleep(BETWEEN_WRITES)


def identity_in_use(endpoint: Object) -> int:
    """The identity that a CiliumEndpoint names; 0 if somebody has edited it into something else."""
    value: Any = endpoint
    for part in ("status", "identity", "id"):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, int) else 0


def malformed(obj: Object) -> str:
    """What is wrong with a CiliumIdentity that can't be read."""
    return (
        f"{obj['metadata']['name']!r} is not used: an identity's name is a number from 256 to 65535,"
        " and its security-labels are a map of source:key to value; delete it"
    )


def unused_since(obj: Object) -> str:
    """What is said of the time at which an identity was found unused; empty if nothing is."""
    return str((obj["metadata"].get("annotations") or {}).get(HEARTBEAT) or "")
