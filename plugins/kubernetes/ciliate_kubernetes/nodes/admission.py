"""The operator lets pods onto nodes whose network works: the taint goes, and the condition says so."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Any

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_NODE, NODE
from ciliate.store import ConflictError, NotFoundError, Object, StoreError, follow

from ciliate_kubernetes.config import KubernetesConfig
from ciliate_kubernetes.nodes.readiness import is_ready

CONDITION, REASON = "NetworkUnavailable", "CiliumIsUp"
RETRY = 1.0


class Admission:
    """Follows Nodes and CiliumNodes; begins with nothing, as a new leader does."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config: KubernetesConfig = context.config
        self._nodes: dict[str, Object] = {}
        self._ready: set[str] = set()
        self._due: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_nodes())
            tasks.create_task(self._follow_readiness())
            tasks.create_task(self._work())

    async def _follow_nodes(self) -> None:
        kind = NODE.only("spec.taints", "status.conditions")
        async with aclosing(follow(self._context.store, kind)) as changes:  # type: ignore[type-var]
            async for change in changes:
                for key in change.deletes:
                    self._nodes.pop(key.name, None)
                for node in change.upserts:
                    self._nodes[node["metadata"]["name"]] = node
                    self._plan(node["metadata"]["name"])

    async def _follow_readiness(self) -> None:
        kind = CILIUM_NODE.only("metadata.annotations", "spec.bootid")
        async with aclosing(follow(self._context.store, kind)) as changes:  # type: ignore[type-var]
            async for change in changes:
                self._ready -= {key.name for key in change.deletes}
                for node in change.upserts:
                    name = node["metadata"]["name"]
                    if is_ready(node):
                        self._ready.add(name)
                        self._plan(name)
                    else:
                        self._ready.discard(name)

    def _plan(self, name: str) -> None:
        if name in self._nodes and name in self._ready:
            self._due.add(name)
            self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                name = self._due.pop()
                try:
                    await self._admit(name)
                except StoreError as error:
                    self._context.log.warning("node can't be admitted yet", node=name, reason=str(error))
                    self._due.add(name)
                    await asyncio.sleep(RETRY)

    async def _admit(self, name: str) -> None:
        """Take the taint away and set the condition, where it is not so. A conflict means that a newer object comes."""
        node = self._nodes.get(name)
        if node is None or name not in self._ready:
            return
        metadata = {key: node["metadata"][key] for key in ("name", "uid", "resourceVersion")}
        with suppress(NotFoundError, ConflictError):
            if self._config.set_cilium_is_up_condition and (conditions := with_condition(node)) is not None:
                changes = {"metadata": metadata, "status": {"conditions": conditions}}
                node = await self._context.store.patch(NODE, changes, status=True)
                metadata["resourceVersion"] = node["metadata"]["resourceVersion"]
            taints = without_taint(node, self._config.agent_not_ready_taint_key)
            if self._config.remove_cilium_node_taints and taints is not None:
                await self._context.store.patch(NODE, {"metadata": metadata, "spec": {"taints": taints}})
                self._context.log.info("node takes pods: its network works", node=name)


def without_taint(node: Mapping[str, Any], key: str) -> list[Any] | None:
    """A node's taints but those of a key; None if it has none of that key."""
    spec = node.get("spec")
    taints = spec.get("taints") if isinstance(spec, dict) else None
    if not isinstance(taints, list):
        return None
    kept = [taint for taint in taints if not (isinstance(taint, dict) and taint.get("key") == key)]
    return kept if len(kept) < len(taints) else None


def with_condition(node: Mapping[str, Any]) -> list[Any] | None:
    """A node's conditions with the word that its network is available; None if they say so already."""
    status = node.get("status")
    found = status.get("conditions") if isinstance(status, dict) else None
    conditions = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    old = next((one for one in conditions if one.get("type") == CONDITION), {})
    if (old.get("status"), old.get("reason")) == ("False", REASON):
        return None
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {
        "type": CONDITION,
        "status": "False",
        "reason": REASON,
        "message": "Ciliate is running on this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": old.get("lastTransitionTime", now) if old.get("status") == "False" else now,
    }
    return [*(one for one in conditions if one.get("type") != CONDITION), ours]
