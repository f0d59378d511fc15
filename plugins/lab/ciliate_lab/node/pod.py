"""One pod, from its object to its end: the task that makes it real and keeps it so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ciliate.model.kinds import POD
from ciliate.store import ConflictError, NotFoundError, Object, Store, StoreError
from structlog.stdlib import BoundLogger

from ciliate_lab.cgroups import CgroupError
from ciliate_lab.node import cni, container, status
from ciliate_lab.node.record import PodRecord, PodRecords, alive
from ciliate_lab.node.sandbox import GRACE, Sandbox
from ciliate_lab.place import LabNode

FINALIZER = "lab.ciliate.io/kubelet"
RETRY_FIRST = 0.1
RETRY_MOST = 5.0
RESTART_FIRST = 0.2
RESTART_MOST = 30.0
LOOK = 0.03
"""Seconds between two looks at a young pod that is not ready; at any other, LOOK_LATER."""
LOOK_LATER = 1.0
YOUNG = 10.0
SETTLED = 0.1
"""Seconds that a command without ports must have run to count as ready: many that fail do so at once."""


@dataclass(frozen=True)
class NodeTools:
    """What every pod of a node needs."""

    node: LabNode
    store: Store
    records: PodRecords
    host_ips: list[str]
    log: BoundLogger


class PodTask:
    """One pod. `pod` is its newest object, None once that is gone; call `poke` after changing it."""

    def __init__(self, tools: NodeTools, record: PodRecord, pod: Object | None) -> None:
        self.record = record
        self.pod = pod
        self._tools = tools
        self._wake = asyncio.Event()
        self._sandbox = Sandbox(tools.node, tools.records, record, self.poke)
        self._retry = RETRY_FIRST
        self._restart = RESTART_FIRST
        self._written: dict[str, Any] = {}

    def poke(self) -> None:
        """Have the pod looked at now."""
        self._wake.set()

    @property
    def ending(self) -> bool:
        """Whether the pod is to go."""
        return self.pod is None or bool(self.pod["metadata"].get("deletionTimestamp"))

    async def run(self) -> None:
        """Realise the pod until it is deleted, then take everything of it away."""
        while not self.ending:
            try:
                pause = await self._step()
            except (StoreError, OSError, CgroupError, cni.CniError) as error:
                self._tools.log.warning("pod can't be brought on", pod=self.record.name, error=str(error))
                pause = self._backoff()
            await self._sleep(pause)
        while not await self._end():
            await self._sleep(self._backoff())

    async def _step(self) -> float:
        """Bring the pod one step nearer to what is wanted; seconds until the next look."""
        pod = self.pod
        assert pod is not None
        if FINALIZER not in pod["metadata"].get("finalizers", []):
            await self._add_finalizer(pod)
            return 0.0
        if self.record.result is None:
            try:
                await self._sandbox.attach()
            except (cni.CniError, OSError) as error:
                await self._say(status.ContainerState(_name(pod), waiting="ContainerCreating", message=str(error)))
                return self._backoff()
        self._retry = RETRY_FIRST
        try:
            wanted = container.container_of(pod, self.record.addresses)
        except container.ContainerError as error:
            await self._say(status.ContainerState(_name(pod), waiting="CreateContainerConfigError", message=str(error)))
            return LOOK_LATER
        if alive(self.record):
            return await self._watch(wanted)
        if self.record.pid:
            return await self._ended(wanted, pod["spec"].get("restartPolicy", "Always"))
        await self._sandbox.start(wanted)
        return 0.0

    async def _watch(self, wanted: container.Container) -> float:
        missing = container.not_listening(self.record.pid, wanted.ports)
        unbound = tuple(f"{port.number}/{port.protocol}" for port in missing)
        age = self._tools.records.age(self.record.uid)
        ready = not missing and (bool(wanted.ports) or age >= SETTLED)
        await self._say(status.ContainerState(wanted.name, running=True, ready=ready, unbound=unbound))
        if age > YOUNG:
            self._restart = RESTART_FIRST
        return LOOK if not ready and age < YOUNG else LOOK_LATER

    async def _ended(self, wanted: container.Container, policy: str) -> float:
        """The command has ended: start it anew, or leave it, as restartPolicy says."""
        await self._sandbox.note_end()
        code = self.record.last_code or 0
        if policy == "Never" or (policy == "OnFailure" and code == 0):
            await self._say(status.ContainerState(wanted.name, exit_code=code, message=f"exit status {code}"))
            return LOOK_LATER
        message = f"the command ended with exit status {code}; it is started again after {self._restart:.1f} s"
        await self._say(status.ContainerState(wanted.name, waiting="CrashLoopBackOff", message=message))
        pause, self._restart = self._restart, min(2 * self._restart, RESTART_MOST)
        await self._sleep(pause, until_deleted=True)
        self.record.pid = 0
        self.record.restarts += 1
        return 0.0

    async def _end(self) -> bool:
        """Stop the command, disconnect the pod, remove what was made, let the object go. False: try again."""
        spec = (self.pod or {}).get("spec") or {}
        try:
            await self._sandbox.stop(float(spec.get("terminationGracePeriodSeconds", GRACE)))
            await self._sandbox.detach()
            await self._remove_finalizer()
            await self._sandbox.remove()
        except (cni.CniError, OSError, StoreError, CgroupError) as error:
            self._tools.log.warning("pod can't be removed yet", pod=self.record.name, error=str(error))
            return False
        return True

    async def _say(self, state: status.ContainerState) -> None:
        """Write the pod's status, if it has changed."""
        assert self.pod is not None
        new = status.pod_status(self.record, state, self._tools.host_ips, self._written or self.pod.get("status") or {})
        if new == self._written:
            return
        meta = {key: value for key, value in self.pod["metadata"].items() if key != "resourceVersion"}
        with suppress(NotFoundError, ConflictError):  # deleted meanwhile, or made anew: the watch tells
            await self._tools.store.update_status({**self.pod, "metadata": meta, "status": new})
            self._written = new

    async def _add_finalizer(self, pod: Object) -> None:
        meta = {**pod["metadata"], "finalizers": [*pod["metadata"].get("finalizers", []), FINALIZER]}
        with suppress(ConflictError, NotFoundError):  # the watch brings the newer object
            self.pod = await self._tools.store.update({**pod, "metadata": meta})
            return
        await self._sleep(RETRY_MOST)

    async def _remove_finalizer(self) -> None:
        with suppress(NotFoundError):
            while True:
                pod = await self._tools.store.get(POD, self.record.name, self.record.namespace)
                if pod["metadata"].get("uid") != self.record.uid:
                    return
                left = [f for f in pod["metadata"].get("finalizers", []) if f != FINALIZER]
                with suppress(ConflictError):
                    await self._tools.store.update({**pod, "metadata": {**pod["metadata"], "finalizers": left}})
                    return

    def _backoff(self) -> float:
        pause, self._retry = self._retry, min(2 * self._retry, RETRY_MOST)
        return pause

    async def _sleep(self, seconds: float, until_deleted: bool = False) -> None:
        """Wait; a poke ends it, or, if so asked, a deletion alone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
            if self._wake.is_set():
                self._wake.clear()
                if self.ending or not until_deleted:
                    return


def _name(pod: Object) -> str:
    containers = pod["spec"].get("containers") or [{}]
    return str(containers[0].get("name", "main"))
