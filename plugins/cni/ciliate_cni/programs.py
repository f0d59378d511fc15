"""The node's program set over an agent's life: which one runs, what health says of it, and the exchange for another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ciliate.context import Context
from ciliate.maps.spec import Writer
from ciliate.model.endpoint import ENDPOINT_POLICIES, Endpoint
from ciliate.model.ipcache import IPCACHE
from ciliate.tables.spec import TableSpec

from ciliate_cni import datapath
from ciliate_cni.attach import Devices
from ciliate_cni.datapath import Datapath
from ciliate_cni.host import HostPair
from ciliate_cni.points import Points
from ciliate_cni.tcxlinks import TcxLinks

REFUSED = "programs"
"""The health condition that says that this version's programs were refused. New pods are served nevertheless."""


class Programs:
    """Loads, attaches and exchanges. What waits for the kernel is done in the worker thread."""

    def __init__(
        self,
        context: Context,
        path: Path,
        devices: Devices,
        links: TcxLinks,
        pair: HostPair,
        families: Iterable[int],
    ) -> None:
        self._context = context
        self._call = context.worker.call
        self._devices, self._links, self._pair = devices, links, pair
        self._load = partial(datapath.load, path, context.maps, context.node.bpffs, pair, families)
        self.loaded: Datapath

    @property
    def exchanging(self) -> bool:
        """Whether the set has maps of its own that the attached one has not."""
        return not self.loaded.refused and datapath.exchanging(self._context.maps, self.loaded.programs)

    async def load(self) -> None:
        """Load or adopt a set, and say what came of it."""
        self.loaded = await self._call(self._load)
        health = self._context.health
        if not self.loaded.refused:
            health.drop(REFUSED)
            return
        kept = f"the node goes on with the older set {self.loaded.programs.hash}"
        health.not_ready(f"this version's programs were refused, and {kept}: {self.loaded.refused}", REFUSED)

    async def attach(self, endpoints: list[Endpoint]) -> None:
        """Have every hook run the set."""
        bpffs = self._context.node.bpffs
        replaced = await self._call(datapath.attach, self.loaded, self._pair, bpffs, self._devices, endpoints)
        await self._call(self._links.adopt, [one.id for one in endpoints], self.loaded.from_pod)
        if replaced:
            self._context.log.info("programs replaced", pods=replaced, hash=self.loaded.programs.hash)

    async def unblocked(self) -> None:
        """Return at once, unless the older set has maps that this version can't write: then never."""
        if self.loaded.blocked:
            names = ", ".join(self.loaded.blocked)
            self._context.health.not_ready(
                f"the older programs' maps {names} have another layout: new pods wait", "cni"
            )
            await asyncio.Event().wait()

    async def exchange(self, endpoints: list[Endpoint], points: Points) -> None:
        """Fill new maps, attach, carry flows over, and let go of the old maps.

        Whoever dies in between finds the same state and begins anew.
        """
        maps, began = self._context.maps, asyncio.get_running_loop().time()
        changed = sorted(change.name for change in maps.changes)
        await self._await_filled()
        await self._call(points.look)
        await self._call(datapath.read_through, maps, True)
        await self.attach(endpoints)
        await self._call(maps.swap, self.loaded.programs.maps)
        carried, lost = await self._call(datapath.carry_over, maps)
        await self._call(datapath.read_through, maps, False)
        await self._call(maps.drop_old)
        older = self.loaded
        await self.load()  # the same, without the old maps, which so go
        await self.attach(endpoints)
        await self._call(older.close)
        seconds = round(asyncio.get_running_loop().time() - began, 3)
        self._context.log.info("maps exchanged", maps=changed, flows_carried=carried, flows_lost=lost, seconds=seconds)

    async def close(self) -> None:
        """Let go of the set; it goes on in the kernel."""
        if hasattr(self, "loaded"):
            await self._call(self.loaded.close)

    async def _await_filled(self) -> None:
        """Wait until policy has written all that it knows to maps that user space writes."""
        mine = self.loaded.programs.maps
        names = [one.name for one in self._context.maps.changes if one.writer is Writer.USER and one.name in mine]
        if not names:
            return
        what = f"the maps {', '.join(sorted(names))} have a new layout: the programs wait until they are filled"
        self._context.health.not_ready(what, "cni")
        await self._complete(ENDPOINT_POLICIES)
        await self._complete(IPCACHE)

    async def _complete(self, spec: TableSpec[Any]) -> None:
        async for changes in self._context.tables.reader(spec).changes():
            if changes.complete:
                return
