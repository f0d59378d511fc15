"""The front door: what the host calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

from ciliate.api.routes import Request, Route
from ciliate.backoff import Backoff
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.loading import load_driver
from ciliate.model.ipam import ADDRESSES, NODE_RANGES, Ipam, IpamDriver, NotReadyError
from ciliate.model.kinds import CILIUM_NODE
from ciliate.plugin import Plugin
from ciliate.store import Kind, Object, UnavailableError, follow
from ciliate.tables.spec import TableSpec

from ciliate_ipam import node_object
from ciliate_ipam.allocator import Allocator
from ciliate_ipam.collection import NodeCollection
from ciliate_ipam.config import IpamSection, networks
from ciliate_ipam.host_networks import node_addresses, overlaps, read_host_networks
from ciliate_ipam.ledger import CONFIG_MAP

_ADDRESSES_EVERY = 30.0
"""Seconds between two looks at this machine's addresses."""
_AFTER_THE_OTHERS = 2.0
"""Seconds that a restarted agent waits with the first: until then it has more urgent work."""
_ANEW_EVERY = 10
"""Looks after which they are written though they are the same: somebody may have edited the object."""


class IpamPlugin(Plugin):
    """In the agent: addresses for pods, and this node's CiliumNode. In the operator: ranges for nodes."""

    name = "ipam"
    description = "Gives nodes their pod ranges and pods their addresses."
    config = IpamSection
    roles = ("agent", "operator")
    essential = True

    @hookimpl
    def ciliate_kinds(self) -> Iterable[Kind]:
        return [CONFIG_MAP]

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        return [ADDRESSES, NODE_RANGES]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        self._context = context
        self._driver: IpamDriver = load_driver("ciliate.ipam", context.config.mode)(context)
        self._allocator: Allocator | None = None
        self._overlapping: set[str] = set()  # ranges of which the log says so
        self._published: Object | None = None
        if context.node.role == "operator":
            context.lead("ranges", self._driver.operate)
            context.lead("nodes", lambda: NodeCollection(context).run())
            context.health.ready()
            return
        config: IpamSection = context.config
        self._allowed = networks(config.allow_overlap, "allow_overlap")
        self._addresses = context.tables.writer(ADDRESSES)
        self._node_ranges = context.tables.writer(NODE_RANGES)
        self._allocator = Allocator(
            self._addresses, self._node_ranges, context.tables.commit, config.families(), config.reuse_delay
        )
        self._addresses.complete()
        context.provide(Ipam, self._allocator)  # type: ignore[type-abstract]
        if not self._allocator.ranges():
            context.health.not_ready(f"no pod range yet from {config.mode}", "ranges")
        context.spawn("ranges", self._follow_ranges)
        context.spawn("node-object", self._publish_often)
        context.spawn("node-object-watch", self._publish_when_deleted)

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        return [Route("GET", "/ipam", self._status, "IPAM's mode, its ranges and how much of them is used.")]

    async def _status(self, _: Request) -> dict[str, Any]:
        usage = self._allocator.usage() if self._allocator else []
        return {"mode": self._context.config.mode, "driver": self._driver.status(), "ranges": usage}

    async def _follow_ranges(self) -> None:
        """Adopt what the driver gives. A failure says why the plugin is not ready; the task is started anew."""
        assert self._allocator is not None
        try:
            async with aclosing(self._driver.ranges()) as given:  # type: ignore[type-var]
                async for ranges in given:
                    used = {r.cidr for r in self._allocator.ranges()}
                    wanted = {r.cidr for r in ranges}
                    if wanted - used:
                        await self._refuse_overlaps(wanted - used)
                    self._allocator.adopt(ranges)
                    self._node_ranges.complete()
                    if wanted != used:
                        await self._publish()
                    self._context.health.ready("ranges")
        except Exception as error:
            self._allocator.reason = str(error)
            self._context.health.not_ready(str(error), "ranges")
            raise

    async def _refuse_overlaps(self, ranges: set[str]) -> None:
        """Look before a range is used for the first time. Raises NotReadyError."""
        host = await asyncio.to_thread(read_host_networks)
        for cidr in sorted(ranges):
            if found := overlaps(cidr, host, self._allowed):
                raise NotReadyError(
                    f"pod range {cidr} overlaps with this machine's {', '.join(map(str, found))}: choose other"
                    " ranges under `ipam:`, or, if it does no harm, list the prefix in ipam.allow_overlap"
                )

    async def _publish(self, anew: bool = False) -> None:
        """Say what this node is, if that has changed, or `anew`; and what its ranges overlap with by now."""
        assert self._allocator is not None
        host = await asyncio.to_thread(read_host_networks)
        for cidr in (r.cidr for r in self._allocator.ranges()):
            if (found := overlaps(cidr, host, self._allowed)) and cidr not in self._overlapping:
                self._context.log.warning("pod range in use overlaps", range=cidr, with_=", ".join(map(str, found)))
                self._overlapping.add(cidr)
        self._published = await node_object.publish(
            self._context.store,
            self._context.node.name,
            node_addresses(host),
            self._allocator.ranges(),
            own_ranges=not self._driver.operator_assigns,
            known=None if anew else self._published,
        )

    async def _publish_when_deleted(self) -> None:
        """Make this node's object again if somebody deletes it while the node lives."""
        changes = follow(self._context.store, CILIUM_NODE, fields={"metadata.name": self._context.node.name})
        async with aclosing(changes) as followed:  # type: ignore[type-var]
            async for change in followed:
                if change.deletes:
                    await self._publish(anew=True)

    async def _publish_often(self) -> None:
        """Make this node's object, and keep its addresses true. After a restart that is no hurry, and others have."""
        if self._allocator is not None and self._allocator.ranges():
            await asyncio.sleep(_AFTER_THE_OTHERS)
        backoff = Backoff(0.5, 5.0)
        for count in itertools.count():
            try:
                await self._publish(anew=count % _ANEW_EVERY == 0)
            except UnavailableError as error:  # as before the kind is registered
                self._context.health.not_ready(str(error), "node object")
                await backoff.wait(error.retry_after)
                continue
            backoff.reset()
            self._context.health.ready("node object")
            await asyncio.sleep(_ADDRESSES_EVERY)
