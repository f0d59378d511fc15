"""The front door: what the host calls."""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from ciliate.api.routes import Request, Route
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.maps.spec import MapSpec
from ciliate.model.endpoint import ENDPOINTS
from ciliate.model.kinds import POD
from ciliate.plugin import Plugin
from ciliate.programs.points import PointProgram
from ciliate.store import Object, ObjectKey, follow, object_key
from ciliate.tables.spec import TableSpec
from msgspec import to_builtins
from prometheus_client.core import CounterMetricFamily

from ciliate_rate_limiter.config import RateLimiterSection
from ciliate_rate_limiter.model import RATE_BUCKETS, RATE_LIMITS, RateLimit

ANNOTATION = "rate-limiter.example/packets-per-second"
FATES = ("passed", "dropped")  # fields of a bucket


class RateLimiterPlugin(Plugin):
    """Keeps a bucket for each pod that has a limit; a program at from_pod takes a packet's worth out of it."""

    name = "rate-limiter"
    description = "Limits how many packets a second each pod may send."
    config = RateLimiterSection

    @hookimpl
    def ciliate_maps(self) -> Iterable[MapSpec]:
        return [RATE_BUCKETS]

    @hookimpl
    def ciliate_programs(self) -> Iterable[PointProgram]:
        return [PointProgram("from_pod", Path(__file__).with_name("rate_limiter.bpf.o"), "rate_limiter")]

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        return [RATE_LIMITS]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        self._context = context
        self._buckets = context.maps.open(RATE_BUCKETS, writable=True)
        self._endpoints = context.tables.reader(ENDPOINTS)
        self._limits = context.tables.writer(RATE_LIMITS)
        self._wanted: dict[ObjectKey, int] | None = None  # packets a second; None: not listed yet
        context.metrics.registry.register(self)  # it has `collect`
        context.spawn("pods", self._follow_pods)
        context.spawn("endpoints", self._follow_endpoints)

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        return [Route("GET", "/rate-limits", self._show, "Pods with a limit, and what it did.")]

    async def _follow_pods(self) -> None:
        async for changes in follow(self._context.store, POD, fields={"spec.nodeName": self._context.node.name}):
            kept = {key: limit for key, limit in (self._wanted or {}).items() if key not in changes.deletes}
            self._wanted = kept | {object_key(pod): self._limit(pod) for pod in changes.upserts}
            self._set_limits()

    async def _follow_endpoints(self) -> None:
        async for _ in self._endpoints.changes():
            self._set_limits()

    def _limit(self, pod: Object) -> int:
        text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION, "")
        return int(text if text.isdecimal() else self._context.config.packets_per_second)

    def _set_limits(self) -> None:
        """Make table and map what pods want; not before all are known: nobody is to lose his limit meanwhile."""
        if self._wanted is None or not self._endpoints.complete:
            return
        limits = {
            pod.id: RateLimit(endpoint=pod.id, namespace=pod.namespace, pod=pod.pod, packets_per_second=limit)
            for pod in self._endpoints.rows.values()
            if (limit := self._wanted.get(ObjectKey(pod.namespace, pod.pod), self._context.config.packets_per_second))
        }
        with self._context.tables.commit():
            for endpoint in self._limits.rows.keys() - limits.keys():
                self._limits.delete(endpoint)
            self._limits.put_all(limits.values())
        self._limits.complete()
        self._buckets.delete_batch([int(key) for key in self._buckets.items()[0] if int(key) not in limits])
        for limit in limits.values():
            speed = 10**9 // limit.packets_per_second, int(10**9 * self._context.config.burst)
            bucket = self._buckets.lookup(limit.endpoint)
            if bucket is None or (bucket["interval"], bucket["depth"]) != speed:
                self._buckets.update(limit.endpoint, (*speed, 0, 0, 0))

    def _rows(self) -> list[dict[str, Any]]:
        return [
            to_builtins(row) | {fate: int(bucket[fate]) for fate in FATES}
            for row in self._limits.rows.values()
            if (bucket := self._buckets.lookup(row.endpoint)) is not None
        ]

    async def _show(self, _: Request) -> list[dict[str, Any]]:
        return self._rows()

    def collect(self) -> Iterable[CounterMetricFamily]:  # for Prometheus
        family = CounterMetricFamily("ciliate_rate_limiter_packets", "Limited pods' packets.", labels=["pod", "fate"])
        for row, fate in product(self._rows(), FATES):
            family.add_metric([f"{row['namespace']}/{row['pod']}", fate], row[fate])
        return [family]
