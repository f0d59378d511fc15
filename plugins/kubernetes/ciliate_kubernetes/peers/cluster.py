"""The plugin at work: follows the cluster's objects and keeps the tables that they come to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from ciliate.context import Context
from ciliate.model.api_server import API_SERVERS, ApiServer
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_NODE
from ciliate.store import Kind, Object, ObjectKey, Selection, follow, object_key

from ciliate_kubernetes.config import KubernetesConfig
from ciliate_kubernetes.peers import objects
from ciliate_kubernetes.peers.claims import API_SERVER, CLAIMS, ENDPOINTS, NODES, RANGES, Claims, Source
from ciliate_kubernetes.peers.objects import Complain, Node

ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", True, has_status=False)
SERVICE_NAMESPACE, SERVICE = "default", {"kubernetes.io/service-name": "kubernetes"}
"""Where every cluster says what addresses its API server has."""
_ENDPOINT = CILIUM_ENDPOINT.only("status.identity.id", "status.networking")
_NODE = CILIUM_NODE.only("spec.addresses", "spec.ipam.podCIDRs", "spec.health", "spec.ingress")
_SLICE = ENDPOINT_SLICE.only("endpoints[].addresses")
_TURN = 0.004
"""Seconds after which others get their turn."""


class Cluster:
    """What is known of the rest of the cluster."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config: KubernetesConfig = context.config
        self._claims = Claims(context.tables.writer(CLAIMS))
        self._api_servers = context.tables.writer(API_SERVERS)
        self._nodes: dict[str, Node] = {}
        self._slices: dict[ObjectKey, list[str]] = {}
        self._missing: set[str] = set()

    def start(self) -> None:
        """Spawn the tasks."""
        for wanted, name, task in (
            (self._config.nodes, "nodes", self._follow_nodes),
            (self._config.endpoints, "endpoints", self._follow_endpoints),
            (self._config.api_server, "api-server", self._follow_slices),
        ):
            if wanted:
                self._missing.add(name)
                self._context.spawn(name, task)
        self._settle()

    async def _follow_nodes(self) -> None:
        async for node, obj in self._objects("nodes", _NODE, set(map(_node_key, self._nodes))):
            if obj is None:
                self._nodes.pop(node.name, None)
            else:
                self._nodes[node.name] = objects.read_node(obj, self._complain(obj, _NODE))
            self._node_changed(node.name)

    def _node_changed(self, name: str) -> None:
        node = self._nodes.get(name)
        if name == self._context.node.name:
            self._claims.set_own(node.addresses if node is not None else frozenset())
        elif node is None:
            self._claims.remove(Source(NODES, "", name))
            self._claims.remove(Source(RANGES, "", name))
        else:
            self._claims.put(Source(NODES, "", name), objects.node_claims(node))
            self._claims.put(Source(RANGES, "", name), objects.range_claims(node))
        if not self._missing:
            self._place_api_servers()

    async def _follow_endpoints(self) -> None:
        known = {ObjectKey(source.namespace, source.name) for source in self._claims.sources(ENDPOINTS)}
        async for key, obj in self._objects("endpoints", _ENDPOINT, known):
            source = Source(ENDPOINTS, *key)
            if obj is None:
                self._claims.remove(source)
            else:
                self._claims.put(source, objects.endpoint_claims(obj, self._complain(obj, _ENDPOINT)))

    async def _follow_slices(self) -> None:
        known = set(self._slices)
        async for key, obj in self._objects("api-server", _SLICE, known, SERVICE_NAMESPACE, SERVICE):
            if obj is None:
                self._slices.pop(key, None)
            else:
                self._slices[key] = objects.slice_addresses(obj, self._complain(obj, _SLICE))
            if not self._missing:
                self._place_api_servers()

    def _place_api_servers(self) -> None:
        """Say where each address of the API server is. All nodes must be known: what is on none of them is outside."""
        addresses = {address for found in self._slices.values() for address in found}
        holders = {address: node for node in self._nodes.values() for address in node.addresses & addresses}
        for address in addresses:
            node, own = holders.get(address), address in self._claims.own
            place = "host" if own else "outside" if node is None else "node"
            self._api_servers.put(ApiServer(address=address, place=place))
            claims = [objects.api_server_claim(address, node)] if node is not None and not own else []
            self._claims.put(Source(API_SERVER, "", address), claims)
        for address in [address for address in self._api_servers.rows if address not in addresses]:
            self._api_servers.delete(address)
            self._claims.remove(Source(API_SERVER, "", address))

    async def _objects(
        self,
        what: str,
        kind: Kind,
        left: set[ObjectKey],
        namespace: str | None = None,
        labels: Selection | None = None,
    ) -> AsyncIterator[tuple[ObjectKey, Object | None]]:
        """Objects as they come and (None) go. left: known from an earlier life, gone if the whole list lacks them."""
        turn = time.monotonic()
        async with aclosing(follow(self._context.store, kind, namespace, labels=labels)) as batches:  # type: ignore[type-var]
            async for changes in batches:
                for obj in sorted(changes.upserts, key=_revision):  # of two that say different things, the later counts
                    left.discard(object_key(obj))
                    yield object_key(obj), obj
                    if time.monotonic() - turn > _TURN:
                        await asyncio.sleep(0)
                        turn = time.monotonic()
                for key in [*changes.deletes, *(left if changes.complete else ())]:
                    yield key, None
                if changes.complete:
                    left = set()
                    self._told(what)
                del changes  # up to a page of objects, and the next change may be long in coming

    def _told(self, what: str) -> None:
        """A kind's whole list has come."""
        if what in self._missing:
            self._missing.remove(what)
            self._settle()

    def _settle(self) -> None:
        """Once all is known, readers may rely on it."""
        if self._missing:
            self._context.health.not_ready(f"waits for all of {', '.join(sorted(self._missing))}")
            return
        self._place_api_servers()
        with self._context.tables.commit():
            self._claims.complete()
            self._api_servers.complete()
        self._context.health.ready()

    def _complain(self, obj: Object, kind: Kind) -> Complain:
        """Name what is malformed in an object."""
        key = object_key(obj)
        where = f"{key.namespace}/{key.name}" if key.namespace else key.name
        return lambda reason: self._context.log.warning(
            "part of an object left out", kind=kind.kind, object=where, reason=reason
        )


def _node_key(name: str) -> ObjectKey:
    return ObjectKey("", name)


def _revision(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])
