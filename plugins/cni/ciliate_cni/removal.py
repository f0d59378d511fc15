"""Deleting pairs in the background, many in one call, when nobody waits for the worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog
from ciliate.model.endpoint import Endpoint
from ciliate.worker import Worker

from ciliate_cni.attach import DOOMED, Devices
from ciliate_cni.endpoints import Endpoints
from ciliate_cni.mover import Mover

log = structlog.get_logger("cni.removal")
BATCH = 32
"""Pairs deleted in one call: 30 ms of rtnl."""
GATHER = 0.05
"""Seconds that the first of a batch waits for others."""
PATIENCE = 1.0
"""Seconds that a batch waits at most while the worker has other work."""


@dataclass
class _Batch:
    """Pairs that go together: their group's place in DOOMED, their endpoints' ids, and their marking under way."""

    group: int
    ids: list[int] = field(default_factory=list)
    marks: list[asyncio.Task[None]] = field(default_factory=list)


class Removal:
    """Takes the devices of deleted endpoints; their ids become free when the devices are gone."""

    def __init__(self, worker: Worker, devices: Devices, endpoints: Endpoints, mover: Mover) -> None:
        self._worker = worker
        self._devices = devices
        self._endpoints = endpoints
        self._mover = mover
        self._batches: list[_Batch] = []
        self._group = 0
        self._wake = asyncio.Event()

    def add(self, endpoint: Endpoint) -> None:
        """Delete an endpoint's pair soon. What is asked of the worker after this, in a task, finds the pair marked."""
        if not self._batches or len(self._batches[-1].ids) >= BATCH:
            self._group = (self._group + 1) % len(DOOMED)
            self._batches.append(_Batch(self._group))
        batch = self._batches[-1]
        batch.ids.append(endpoint.id)
        mark = asyncio.create_task(self._worker.call(self._devices.doom, endpoint.host_interface, batch.group))
        mark.add_done_callback(_marked)
        batch.marks.append(mark)
        self._wake.set()

    async def run(self) -> None:
        """Delete batches, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._batches:
                await asyncio.sleep(GATHER)
                deadline = asyncio.get_running_loop().time() + PATIENCE
                await self._quiet(deadline)
                batch = self._batches.pop(0)
                await asyncio.gather(*batch.marks, return_exceptions=True)  # none may come after its batch has gone
                await self._detach(batch.ids, deadline)
                await self._worker.call(self._devices.reap, batch.group)
                await self._mover.forget(batch.ids)
                self._endpoints.release(batch.ids)

    async def _detach(self, ids: list[int], deadline: float) -> None:
        """Break tcx links one by one: an interface with a link is deleted 13 ms slower, a batch in one hold of rtnl."""
        for endpoint in ids:
            if self._mover.has_moved(endpoint):
                await self._mover.detach(endpoint)
                await self._quiet(deadline)

    async def _quiet(self, deadline: float) -> None:
        """Wait until the worker has nothing to do, but not for ever."""
        loop = asyncio.get_running_loop()
        while self._worker.waiting and loop.time() < deadline:
            await asyncio.sleep(0.005)


def _marked(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a pair could not be marked for deletion; the next start removes it", error=str(error))
