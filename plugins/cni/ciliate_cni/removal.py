"""Deleting pairs in the background, many in one call, when nobody waits for the worker."""

from __future__ import annotations

import asyncio

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


class Removal:
    """Takes the devices of deleted endpoints; their ids become free when the devices are gone."""

    def __init__(self, worker: Worker, devices: Devices, endpoints: Endpoints, mover: Mover) -> None:
        self._worker = worker
        self._devices = devices
        self._endpoints = endpoints
        self._mover = mover
        self._batches: list[tuple[int, list[int]]] = []
        self._number = 0
        self._wake = asyncio.Event()
        self._marking: set[asyncio.Task[None]] = set()

    def add(self, endpoint: Endpoint) -> None:
        """Delete an endpoint's pair soon. What is asked of the worker after this finds the pair marked."""
        if not self._batches or len(self._batches[-1][1]) >= BATCH:
            self._number = (self._number + 1) % len(DOOMED)
            self._batches.append((self._number, []))
        batch, ids = self._batches[-1]
        ids.append(endpoint.id)
        task = asyncio.create_task(self._worker.call(self._devices.doom, endpoint.host_interface, batch))
        self._marking.add(task)
        task.add_done_callback(self._marked)
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Pairs that are not deleted yet."""
        return sum(len(ids) for _, ids in self._batches)

    async def run(self) -> None:
        """Delete batches, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._batches:
                await asyncio.sleep(GATHER)
                deadline = asyncio.get_running_loop().time() + PATIENCE
                await self._quiet(deadline)
                batch, ids = self._batches.pop(0)
                await self._detach(ids, deadline)
                await self._worker.call(self._devices.reap, batch)
                await self._mover.forget(ids)
                self._endpoints.release(ids)

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

    def _marked(self, task: asyncio.Task[None]) -> None:
        self._marking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a pair could not be marked for deletion; the next start removes it", error=str(error))
