"""The front door: what the host calls."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import numpy as np
from ciliate.api.routes import Request, Route
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINTS
from ciliate.model.event import EventKind
from ciliate.model.identity import IDENTITIES
from ciliate.model.policy import RULE_SETS
from ciliate.plugin import Plugin

from ciliate_denied_flows.config import DeniedFlowsSection
from ciliate_denied_flows.file import LineFile
from ciliate_denied_flows.flow import DENIED, Names, wall_time


class DeniedFlowsPlugin(Plugin):
    """Follows the data path's records, and writes those of denied packets."""

    name = "denied-flows"
    description = "Writes every denied flow to a file, as a line of JSON."
    config = DeniedFlowsSection

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        self._context = context
        config: DeniedFlowsSection = context.config
        self._file = LineFile(context.node.state_dir / config.path, config.max_size)
        of = context.tables.reader
        self._names = Names(of(ENDPOINTS).rows, of(IDENTITIES).rows, of(RULE_SETS).rows, of(ENDPOINT_POLICIES).rows)
        self._total = context.metrics.counter("ciliate_denied_flows_total", "Denied flows, by their fate.", "fate")
        self._lost: Counter[str] = Counter()
        self._writing = asyncio.Lock()
        context.spawn("flows", self._follow)
        context.spawn("losses", self._tell_losses)

    @hookimpl
    def ciliate_routes(self) -> list[Route]:
        return [Route("GET", "/denied-flows", self._tail, "The last lines that were written; query: count.")]

    async def _follow(self) -> None:
        ring_lost = self._context.batches.lost() or 0
        async for delivery in self._context.batches.subscribe(capacity=16):
            before, ring_lost = ring_lost, self._context.batches.lost() or 0
            self._lost.update(unread=delivery.lost, unrecorded=max(0, ring_lost - before))
            for batch in delivery.events:
                records = batch[np.isin(batch["reason"], DENIED) & (batch["kind"] == EventKind.DROP)]
                for start in range(0, len(records), 100):  # some milliseconds' work, then others may use the loop
                    await self._write([self._names.flow(record) for record in records[start : start + 100]])

    async def _tell_losses(self) -> None:
        """Also when no flow is denied any more; so that health is well again when the disk is."""
        while True:
            await asyncio.sleep(2)
            await self._write([])

    async def _write(self, flows: list[dict[str, Any]]) -> None:
        """Write flows, and before them what was lost: what the disk refuses, too."""
        if wanted := set(self._context.config.namespaces):
            flows = [flow for flow in flows if wanted & {flow["source"]["namespace"], flow["destination"]["namespace"]}]
        async with self._writing:
            lost = +self._lost
            told = [{"time": wall_time(time.monotonic_ns()), "lost": lost}] if lost else []
            text = "".join(json.dumps(line) + "\n" for line in [*told, *flows])
            try:
                await asyncio.to_thread(self._file.append, text.encode())
            except OSError as error:
                self._context.health.not_ready(f"{self._file.path}: {error.strerror}", "file")
                self._lost["unwritten"] += len(flows)
                self._total.labels("lost").inc(len(flows))
                return
            self._lost -= lost
            self._context.health.ready("file")
            self._total.labels("written").inc(len(flows))

    async def _tail(self, request: Request) -> list[Any]:
        lines = await asyncio.to_thread(self._file.tail, int(request.query.get("count", "10")))
        return [json.loads(line) for line in lines]
