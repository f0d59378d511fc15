"""The kubelet of a lab node: follows the pods that are bound to its node and has a task for each."""

from __future__ import annotations

import asyncio
import re
import secrets

from ciliate.context import Context
from ciliate.model.kinds import POD
from ciliate.store import Object, ObjectKey, follow, object_key

from ciliate_lab.node.pod import NodeTools, PodTask
from ciliate_lab.node.record import PodRecord, PodRecords
from ciliate_lab.place import LabNode


class Kubelet:
    """One node's pods, by uid."""

    def __init__(self, context: Context, node: LabNode, host_ips: list[str]) -> None:
        self._context = context
        self._node = node
        self._tools = NodeTools(node, context.store, PodRecords(node.state_dir / "pods"), host_ips, context.log)
        self._pods: dict[str, PodTask] = {}
        self._running: set[asyncio.Task[None]] = set()
        context.health.not_ready("the pods of this node have not been read yet", "pods")

    async def run(self) -> None:
        """Take over the pods of a former kubelet, then follow the objects. Pods outlive this."""
        for record in self._tools.records.load():
            self._pods.setdefault(record.uid, PodTask(self._tools, record, None))
        listed = False
        try:
            async for changes in follow(self._context.store, POD, fields={"spec.nodeName": self._node.name}):
                new = [task for pod in changes.upserts if (task := self._changed(pod)) is not None]
                for key in changes.deletes:
                    self._deleted(key)
                for task in new if listed else list(self._pods.values()):  # at first also those whose object is gone
                    self._launch(task)
                listed = True
                self._context.health.ready("pods")
        finally:
            for running in self._running:
                running.cancel()

    def _changed(self, pod: Object) -> PodTask | None:
        """Hand an object to its pod's task; the task, if the pod is new."""
        uid = pod["metadata"]["uid"]
        for other in self._pods.values():
            if other.record.uid != uid and other.pod is not None and object_key(other.pod) == object_key(pod):
                other.pod = None
                other.poke()
        task = self._pods.get(uid)
        if task is not None:
            task.pod = pod
            task.poke()
            return None
        if pod["metadata"].get("deletionTimestamp"):
            return None
        self._pods[uid] = PodTask(self._tools, self._new_record(pod), pod)
        return self._pods[uid]

    def _deleted(self, key: ObjectKey) -> None:
        for task in self._pods.values():
            if task.pod is not None and object_key(task.pod) == key:
                task.pod = None
                task.poke()

    def _launch(self, task: PodTask) -> None:
        running = asyncio.create_task(self._keep(task), name=f"pod {task.record.namespace}/{task.record.name}")
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _keep(self, task: PodTask) -> None:
        """A pod's task to its end; an error of ours must not leave the pod unattended."""
        while True:
            try:
                await task.run()
            except Exception as error:
                self._context.log.exception("pod's task failed", pod=task.record.name, error=str(error))
                await asyncio.sleep(1.0)
            else:
                self._pods.pop(task.record.uid, None)
                return

    def _new_record(self, pod: Object) -> PodRecord:
        meta = pod["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        container_id = secrets.token_hex(32)
        record = PodRecord(
            uid=meta["uid"],
            namespace=namespace,
            name=name,
            container_id=container_id,
            netns=f"{self._node.lab.prefix}pod-{container_id[:12]}",
            cgroup=str(self._node.cgroup / "pods" / re.sub(r"[^a-zA-Z0-9-]", "-", meta["uid"])),
            log=str(self._node.pod_log(namespace, name)),
        )
        self._tools.records.save(record)
        return record
