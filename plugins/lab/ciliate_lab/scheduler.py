"""What a control plane does, for a lab, in its operator: bind pods to nodes, make namespaces, route to pod ranges."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_NODE, NODE, POD
from ciliate.store import AlreadyExistsError, ConflictError, NotFoundError, Object, ObjectKey, follow, object_key

from ciliate_lab import network
from ciliate_lab.place import LabError, LabPlace

NAMESPACES = ("default", "kube-system")


class Scheduler:
    """Gives each pod without a node the ready node that has the fewest."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._nodes: dict[str, bool] = {}  # name to ready
        self._pods: dict[ObjectKey, Object] = {}
        self._known_namespaces: set[str] = set()
        self._changed = asyncio.Event()

    async def follow_nodes(self) -> None:
        """Keep the nodes."""
        async for changes in follow(self._context.store, NODE):
            for node in changes.upserts:
                conditions = (node.get("status") or {}).get("conditions") or []
                ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                self._nodes[node["metadata"]["name"]] = ready
            for key in changes.deletes:
                self._nodes.pop(key.name, None)
            self._changed.set()

    async def follow_pods(self) -> None:
        """Keep the pods."""
        async for changes in follow(self._context.store, POD):
            for pod in changes.upserts:
                self._pods[object_key(pod)] = pod
            for key in changes.deletes:
                self._pods.pop(key, None)
            self._changed.set()

    async def run(self) -> None:
        """Bind whatever is unbound, whenever something has changed."""
        for namespace in NAMESPACES:
            await self._ensure_namespace(namespace)
        self._context.health.ready()
        while True:
            await self._changed.wait()
            self._changed.clear()
            for pod in list(self._pods.values()):
                await self._ensure_namespace(pod["metadata"]["namespace"])
                if not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp"):
                    await self._bind(pod)

    async def _bind(self, pod: Object) -> None:
        counts = {name: 0 for name, ready in self._nodes.items() if ready}
        for other in self._pods.values():
            name = other["spec"].get("nodeName")
            if name in counts:
                counts[name] += 1
        if not counts:
            return  # a node that becomes ready sets the event
        node = min(sorted(counts), key=lambda name: counts[name])
        with suppress(ConflictError, NotFoundError):  # the watch brings the newer object
            bound = await self._context.store.update({**pod, "spec": {**pod["spec"], "nodeName": node}})
            self._pods[object_key(bound)] = bound

    async def _ensure_namespace(self, name: str) -> None:
        if name in self._known_namespaces:
            return
        meta: dict[str, Any] = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
        with suppress(AlreadyExistsError):
            await self._context.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        self._known_namespaces.add(name)


class OutsideRoutes:
    """Routes of the namespace `outside`, in which the operator runs, to every node's pod ranges."""

    def __init__(self, context: Context, lab: LabPlace) -> None:
        self._context = context
        self._addresses = {node.name: network.node_addresses(node.number) for node in lab.nodes()}
        self._routed: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Follow the CiliumNode objects."""
        async for changes in follow(self._context.store, CILIUM_NODE):
            for node in changes.upserts:
                await self._route(node)

    async def _route(self, node: Object) -> None:
        addresses = self._addresses.get(node["metadata"]["name"])
        cidrs = ((node.get("spec") or {}).get("ipam") or {}).get("podCIDRs") or []
        if addresses is None:
            return
        wanted = {(cidr, addresses[1] if ":" in cidr else addresses[0]) for cidr in cidrs} - self._routed
        if not wanted:
            return
        try:
            await asyncio.to_thread(network.route_ranges, wanted)
            self._routed |= wanted
        except LabError as error:
            self._context.log.error("routes to pods", node=node["metadata"]["name"], error=str(error))
