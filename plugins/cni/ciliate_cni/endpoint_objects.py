"""The CiliumEndpoints of this node's pods: written when they do not say what is so, deleted with the endpoint.

Other nodes learn from them which address has which identity, so a new pod's is written as soon as its policy is in the
kernel: one request a pod. What can't be written now is tried again. The objects that name this node are followed: so
those that somebody has deleted or edited are put right, and those of endpoints that are gone are deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from ciliate.context import Context
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINTS, Endpoint
from ciliate.model.identity import IDENTITIES
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_NODE
from ciliate.store import ConflictError, InvalidError, NotFoundError, Object, ObjectKey, StoreError, follow, object_key
from ciliate.tables.table import Changes

from ciliate_cni.endpoint_status import READY, endpoint_object, pod_uid_of

OWNER = "endpoint"
NODE_FIELD = "status.networking.node"
PATIENCE = 2.0
"""Seconds that a pod's policy may take before its object says that it is waited for."""
AT_ONCE = 4
"""Requests at a time."""
RETRY_FIRST, RETRY_MOST = 0.5, 30.0
MEND_AFTER = 1.0
"""Seconds until an object that somebody has changed is put right: two writers must not keep each other busy."""


class EndpointObjects:
    """Keeps them, one task for all."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._policies = context.tables.reader(ENDPOINT_POLICIES)
        self._identities = context.tables.reader(IDENTITIES)
        self._rows: dict[int, Endpoint] = {}
        self._pods: dict[ObjectKey, list[int]] = {}  # endpoints of a pod, the newest last
        self._stored: dict[ObjectKey, Object] = {}  # this node's objects, as far as they are known
        self._due: dict[ObjectKey, float] = {}  # by the loop's clock
        self._failures: dict[ObjectKey, int] = {}
        self._waiting: dict[tuple[int, int], float] = {}  # endpoint and generation: since when it has no policy
        self._address = ""
        self._listed = False  # the objects
        self._complete = False  # the endpoints
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Everything, for ever; begins with nothing known."""
        for known in (self._rows, self._pods, self._stored, self._due):
            known.clear()
        self._address, self._listed, self._complete = "", False, False
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_address())
            tasks.create_task(self._follow_endpoints())
            tasks.create_task(self._follow_policies())
            tasks.create_task(self._work())

    # What is told

    async def _follow_address(self) -> None:
        """The node's address, and with it the objects that name it."""
        node = CILIUM_NODE.only("spec.addresses")
        changes = follow(self._context.store, node, fields={"metadata.name": self._context.node.name})
        following: asyncio.Task[None] | None = None
        try:
            async with aclosing(changes) as followed:  # type: ignore[type-var]
                async for change in followed:
                    for obj in change.upserts:
                        if (address := internal_address(obj)) not in ("", self._address):
                            self._address = address
                            if following is not None:
                                following.cancel()
                            following = asyncio.create_task(self._follow_objects(address))
                            self._plan(self._pods)
        finally:
            if following is not None:
                following.cancel()

    async def _follow_objects(self, address: str) -> None:
        self._stored.clear()
        kind = CILIUM_ENDPOINT.only("status", "metadata.labels", "metadata.ownerReferences")
        try:
            async with aclosing(follow(self._context.store, kind, fields={NODE_FIELD: address})) as batches:  # type: ignore[type-var]
                async for changes in batches:
                    for key in changes.deletes:
                        self._stored.pop(key, None)
                    for obj in changes.upserts:
                        self._stored[object_key(obj)] = obj
                    delay = MEND_AFTER if self._listed else 0.0
                    self._plan([*changes.deletes, *map(object_key, changes.upserts)], delay)
                    self._listed |= changes.complete
        except InvalidError as error:  # the CRD is another's
            self._context.log.warning("CiliumEndpoints can't be followed; those edited stay so", reason=str(error))
            self._listed = True
            self._wake.set()

    async def _follow_endpoints(self) -> None:
        async with aclosing(self._context.tables.reader(ENDPOINTS).changes()) as batches:
            async for changes in batches:
                for number in self._gone(changes):
                    self._forget(number)
                for row in changes.upserts:
                    self._put(row)
                if changes.complete and not self._complete:
                    self._complete = True
                    self._plan(self._stored)

    def _gone(self, changes: Changes[Endpoint]) -> Iterable[int]:
        if changes.snapshot:
            present = {row.id for row in changes.upserts}
            return [number for number in self._rows if number not in present]
        return list(changes.deletes)

    def _put(self, row: Endpoint) -> None:
        known = self._rows.get(row.id)
        if known is not None and (known.pod_uid, known.container_id) != (row.pod_uid, row.container_id):
            self._forget(row.id)  # the number is another's now
        if not row.pod or not row.pod_uid:
            return
        self._rows[row.id] = row
        key = ObjectKey(row.namespace, row.pod)
        numbers = self._pods.setdefault(key, [])
        if row.id not in numbers:
            numbers.append(row.id)
        self._plan([key])

    def _forget(self, number: int) -> None:
        row = self._rows.pop(number, None)
        if row is None:
            return
        self._waiting.pop((row.id, row.generation), None)
        key = ObjectKey(row.namespace, row.pod)
        self._pods[key].remove(number)
        if not self._pods[key]:
            del self._pods[key]
        self._plan([key])

    async def _follow_policies(self) -> None:
        async with aclosing(self._policies.changes()) as batches:
            async for changes in batches:
                rows = [self._rows[row.id] for row in changes.upserts if row.id in self._rows]
                self._plan({ObjectKey(row.namespace, row.pod) for row in rows})

    def _plan(self, keys: Iterable[ObjectKey], delay: float = 0.0) -> None:
        """Have pods' objects looked at, after a while perhaps, or earlier if that was planned."""
        due = asyncio.get_running_loop().time() + delay
        for key in keys:
            self._due[key] = min(due, self._due.get(key, due))
        self._wake.set()

    # What is written

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            now = asyncio.get_running_loop().time()
            ready = [key for key, due in self._due.items() if due <= now][:AT_ONCE] if self._listed else []
            if ready:
                for key in ready:
                    del self._due[key]
                await asyncio.gather(*map(self._try, ready))
                continue
            pause = min((due - now for due in self._due.values()), default=None) if self._listed else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _try(self, key: ObjectKey) -> None:
        try:
            await self._look(key)
            self._failures.pop(key, None)
        except StoreError as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._context.log.warning("CiliumEndpoint not written", endpoint="/".join(key), reason=str(error))
            self._plan([key], min(RETRY_FIRST * 2**failures, RETRY_MOST))

    async def _look(self, key: ObjectKey) -> None:
        """Make one pod's object what it should be. Raises StoreError."""
        numbers = self._pods.get(key)
        row = self._rows[numbers[-1]] if numbers else None
        if row is None:
            await self._delete(key)
            return
        policy = self._policies.get(row.id)
        identity = self._identities.get(policy.identity) if policy is not None else None
        wanted = endpoint_object(row, policy, identity.labels if identity else (), self._address)
        if row.disconnecting or (wanted["status"]["state"] != READY and not self._is_overdue(key, row)):
            return
        if not covers(self._stored.get(key, {}), {part: wanted[part] for part in ("metadata", "status")}):
            self._stored[key] = await self._context.store.apply(wanted, OWNER)

    def _is_overdue(self, key: ObjectKey, row: Endpoint) -> bool:
        """Whether a pod has waited for its policy for long; if not, it is looked at again."""
        now = asyncio.get_running_loop().time()
        since = self._waiting.setdefault((row.id, row.generation), now)
        if now - since >= PATIENCE:
            return True
        self._plan([key], since + PATIENCE - now)
        return False

    async def _delete(self, key: ObjectKey) -> None:
        """Delete the object of a pod that has no endpoint here any more, unless it is another's by now."""
        stored = self._stored.get(key)
        if stored is None or not self._complete:
            return
        with suppress(NotFoundError, ConflictError):
            found = await self._context.store.get(
                CILIUM_ENDPOINT.only(NODE_FIELD, "metadata.ownerReferences"), key.name, key.namespace
            )
            networking = (found.get("status") or {}).get("networking") or {}
            if pod_uid_of(found) == pod_uid_of(stored) and networking.get("node") == self._address:
                await self._context.store.delete(CILIUM_ENDPOINT, key.name, key.namespace, uid=found["metadata"]["uid"])
        self._stored.pop(key, None)


def covers(found: Any, wanted: Any) -> bool:
    """Whether a value says all that another does; a list is one value."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(covers(found.get(key), value) for key, value in wanted.items())
    return bool(found == wanted)


def internal_address(node: Object) -> str:
    """A CiliumNode's address in its network, IPv4 before IPv6; empty if it has none."""
    spec = node.get("spec")
    listed = spec.get("addresses") if isinstance(spec, dict) else None
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = [str(one.get("ip", "")) for one in entries if one.get("type") == "InternalIP"]
    return min(filter(None, found), key=lambda address: ":" in address, default="")
