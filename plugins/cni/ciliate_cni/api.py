"""API routes of the plugin: endpoints, conntrack, packet counters, and the stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from ciliate.api.routes import ApiError, Request, Route
from ciliate.model.conntrack import CONNTRACK_MAP, CONNTRACK_NEW_MAP
from ciliate.model.endpoint import ENDPOINT_POLICIES, Endpoint
from ciliate.model.event import PACKETS_MAP
from ciliate.model.policy import RULE_SETS
from ciliate.model.reasons import reason_text

from ciliate_cni import records
from ciliate_cni.agent import Agent
from ciliate_cni.metrics import direction_name, packet_counts

_STREAM_BATCHES = 256


def routes(agent: Agent) -> Iterable[Route]:
    """All routes."""
    served = _Served(agent)
    return (
        Route("GET", "/endpoints", served.endpoints, "Every endpoint of this node, with its policy's state."),
        Route(
            "GET", "/endpoints/{id}", served.endpoint, "One endpoint: by id, <namespace>:<pod>, container or address."
        ),
        Route("GET", "/bpf/ct", served.conntrack, "Every conntrack entry."),
        Route("GET", "/bpf/metrics", served.metrics, "Packets and bytes by reason and direction."),
        Route("GET", "/points", served.points, "Plugins' programs in a packet's path: slot, counts, sampled time."),
        Route(
            "GET", "/monitor", served.monitor, "The data path's events as they come; query: type, from, to, related."
        ),
    )


class _Served:
    """The handlers."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._rule_sets = agent.context.tables.reader(RULE_SETS)
        self._policies = agent.context.tables.reader(ENDPOINT_POLICIES)

    async def endpoints(self, _: Request) -> list[dict[str, Any]]:
        return [self._shown(e) for e in sorted(self._agent.endpoints.all(), key=lambda e: e.id)]

    async def endpoint(self, request: Request) -> dict[str, Any]:
        wanted = request.params["id"]
        for endpoint in self._agent.endpoints.all():
            names = {str(endpoint.id), f"{endpoint.namespace}:{endpoint.pod}", endpoint.container_id}
            if wanted in names | {endpoint.ipv4, endpoint.ipv6}:
                return self._shown(endpoint)
        raise ApiError(404, f"no endpoint {wanted}; `ciliate-dbg endpoint list` shows those of this node")

    async def conntrack(self, _: Request) -> list[dict[str, Any]]:
        maps = self._agent.context.maps
        found = []
        for spec in (CONNTRACK_MAP, CONNTRACK_NEW_MAP):
            keys, entries = maps.open(spec.name).items()
            found += [records.flow(spec.name, k, e) for k, e in zip(keys, entries, strict=True)]
        return found

    async def metrics(self, _: Request) -> list[dict[str, Any]]:
        items = self._agent.context.maps.open(PACKETS_MAP.name).items()
        return [
            {"reason": reason_text(reason), "direction": direction_name(direction), "packets": packets, "bytes": size}
            for reason, direction, packets, size in packet_counts(items)
        ]

    async def points(self, _: Request) -> list[dict[str, Any]]:
        return self._agent.points.rows()

    async def monitor(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        keep = records.selection(request.query)
        subscription = self._agent.context.batches.subscribe(_STREAM_BATCHES)
        async for delivery in subscription:
            if delivery.lost:
                yield {"lost": delivery.lost}
            for batch in delivery.events:
                for event in batch[keep(batch)]:
                    shown = records.named_rules(records.event(event), self._rule_sets.rows, self._policies.rows)
                    yield shown | {"plugin": self._agent.points.name_of(int(event["plugin_slot"]))}

    def _shown(self, endpoint: Endpoint) -> dict[str, Any]:
        policy = self._agent.policies.get(endpoint.id)
        current = policy if policy is not None and policy.generation == endpoint.generation else None
        flows, limit = self._agent.flow_limits.of(endpoint.id)
        return {
            **msgspec.to_builtins(endpoint),
            "state": "ready" if self._agent.is_ready(endpoint) else "waiting-for-identity",
            "attached": self._agent.attached(endpoint),
            "flows": flows,
            "flow_limit": limit,
            "identity": current.identity if current is not None else 0,
            "policy": msgspec.to_builtins(current) if current is not None else None,
        }
