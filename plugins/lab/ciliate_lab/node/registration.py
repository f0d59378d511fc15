"""The Node object of a lab node: its addresses, and whether pods can be run on it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ciliate.context import Context
from ciliate.model.kinds import NODE
from ciliate.store import AlreadyExistsError, ConflictError, NotFoundError, Object

from ciliate_lab.node import cni, status
from ciliate_lab.place import LabNode

LOOK = 0.05
"""Seconds between two looks at a node that is not ready; at one that is, LOOK_LATER."""
LOOK_LATER = 1.0


class Registration:
    """Keeps one Node object."""

    def __init__(self, context: Context, node: LabNode, host_ips: list[str]) -> None:
        self._context = context
        self._node = node
        self._host_ips = host_ips
        context.health.not_ready("the Node object has not been written yet", "network")

    async def run(self) -> None:
        """Write the object whenever readiness changes."""
        written: str | None = None
        while True:
            try:
                cni.load_network(self._node.conf_dir)
                reason = ""
            except cni.CniError as error:
                reason = str(error)
            if reason != written:
                await self._write(reason)
                written = reason
                if reason:
                    self._context.health.not_ready(reason, "network")
                else:
                    self._context.health.ready("network")
            await asyncio.sleep(LOOK if reason else LOOK_LATER)

    async def _write(self, reason: str) -> None:
        store = self._context.store
        while True:
            with suppress(ConflictError, AlreadyExistsError):  # another writer was quicker: look again
                try:
                    node = await store.get(NODE, self._node.name)
                except NotFoundError:
                    node = await store.create(self._new_object())
                await store.update_status({**node, "status": self._status(node, reason)})
                return

    def _new_object(self) -> Object:
        labels = {"kubernetes.io/hostname": self._node.name, "kubernetes.io/os": "linux"}
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._node.name, "labels": labels}, "spec": {}}

    def _status(self, node: Object, reason: str) -> Object:
        condition = {
            "type": "Ready",
            "status": "False" if reason else "True",
            "reason": "NetworkPluginNotReady" if reason else "KubeletReady",
            "message": reason,
            "lastTransitionTime": status.timestamp(),
        }
        old = node.get("status") or {}
        others = [c for c in old.get("conditions") or [] if c["type"] != "Ready"]
        addresses = [{"type": "InternalIP", "address": ip} for ip in self._host_ips]
        addresses.append({"type": "Hostname", "address": self._node.name})
        return {**old, "addresses": addresses, "conditions": [*others, condition]}
