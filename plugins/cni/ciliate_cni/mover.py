"""Moving pods' programs from clsact to tcx, which is faster a packet and slower to attach, while nobody waits."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from ciliate.kernel.errors import KernelError
from ciliate.kernel.probe import Feature, probe
from ciliate.model.endpoint import Endpoint
from ciliate.programs.program import Program
from ciliate.worker import Worker

from ciliate_cni.activity import Activity
from ciliate_cni.config import CniConfig
from ciliate_cni.endpoints import Endpoints
from ciliate_cni.tcxlinks import TcxLinks

log = structlog.get_logger("cni.mover")


class Mover:
    """Knows which endpoints have a tcx link; gives them one, or with `tcx: off` takes it, one after another."""

    def __init__(
        self,
        config: CniConfig,
        worker: Worker,
        links: TcxLinks,
        endpoints: Endpoints,
        activity: Activity,
        moved: Iterable[int] = (),
    ) -> None:
        """`moved`: endpoints that have their link from an earlier life."""
        self._config = config
        self._worker = worker
        self._links = links
        self._endpoints = endpoints
        self._activity = activity
        self._moved = set(moved)
        self._failed: dict[int, int] = {}  # endpoint to the generation that stays as it is

    def has_moved(self, endpoint: int) -> bool:
        """Whether an endpoint's packets are judged by a tcx link."""
        return endpoint in self._moved

    async def run(self, program: Program) -> None:
        """Move what is to be moved, for ever; where the kernel has no tcx, nothing is."""
        wanted = self._config.tcx == "auto"
        if wanted and not (found := await self._worker.call(probe, Feature.TCX)).available:
            log.info("pods stay on clsact: this kernel has no tcx", kernel=found.detail)
            wanted = False
        while True:
            for endpoint in self._waiting(wanted):
                await self._activity.quiet(self._config.tcx_delay)
                if self._endpoints.get(endpoint.id) == endpoint:
                    await self._move(endpoint, program, wanted)
            if not self._waiting(wanted):
                await self._activity.next_end()

    async def detach(self, endpoint: int) -> None:
        """Break the link of an endpoint that is being deleted."""
        await self._worker.call(self._links.detach, endpoint)

    async def forget(self, endpoints: Iterable[int]) -> None:
        """These endpoints' devices are gone; their ids may be others' soon."""
        gone = list(endpoints)
        await self._worker.call(self._links.forget, gone)
        self._moved.difference_update(gone)

    def _waiting(self, wanted: bool) -> list[Endpoint]:
        return [
            endpoint
            for endpoint in self._endpoints.all()
            if (endpoint.id in self._moved) != wanted and self._failed.get(endpoint.id) != endpoint.generation
        ]

    async def _move(self, endpoint: Endpoint, program: Program, wanted: bool) -> None:
        try:
            if wanted:
                await self._worker.call(self._links.attach, endpoint.id, program)
                self._moved.add(endpoint.id)
            else:
                await self._worker.call(self._links.detach, endpoint.id)
                self._moved.discard(endpoint.id)
        except (KernelError, OSError) as error:
            self._failed[endpoint.id] = endpoint.generation
            log.warning("a pod's program stays where it is", endpoint=endpoint.id, error=str(error))
