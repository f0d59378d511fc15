"""The service observer.Observer of the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import UInt32Value

from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub
from ciliate_hubble.api.relay_pb2 import NODE_CONNECTED, NODE_ERROR, NODE_UNAVAILABLE
from ciliate_hubble.relay.channels import reason_of
from ciliate_hubble.relay.config import RelayConfig
from ciliate_hubble.relay.connection import Connection
from ciliate_hubble.relay.flows import FlowMerge, Metadata, RefusedError
from ciliate_hubble.relay.metrics import RelayMetrics
from ciliate_hubble.relay.pool import Pool

NAME = "observer.Observer"
UNAVAILABLE_NAMES_MOST = 10
CALL_TIMEOUT = 5.0
"""Seconds that a node has for an answer that is no stream."""
SETTLE = 2.0
"""Seconds for which a reader waits while the relay is connecting to nodes for the first time."""
_OWN_METADATA = ("user-agent", "content-type", "te", "host")
A = TypeVar("A")
Context = grpc.aio.ServicerContext[Any, Any]


class RelayObserver:
    """Answers for all nodes."""

    def __init__(
        self,
        pool: Pool,
        listed: Callable[[], str],
        config: RelayConfig,
        version: str,
        place: str,
        metrics: RelayMetrics,
    ) -> None:
        """listed: why no nodes are known, empty if they are. place: the name of the node that the relay runs on."""
        self._pool = pool
        self._listed = listed
        self._config = config
        self._version = version
        self._place = place
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server is given. Flows go through as bytes."""
        unary: Any = grpc.unary_unary_rpc_method_handler
        stream: Any = grpc.unary_stream_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetFlows": stream(self.get_flows, api.GetFlowsRequest.FromString),
            "GetNodes": unary(self.get_nodes, api.GetNodesRequest.FromString, api.GetNodesResponse.SerializeToString),
            "GetNamespaces": unary(
                self.get_namespaces, api.GetNamespacesRequest.FromString, api.GetNamespacesResponse.SerializeToString
            ),
            "ServerStatus": unary(
                self.server_status, api.ServerStatusRequest.FromString, api.ServerStatusResponse.SerializeToString
            ),
            "GetAgentEvents": stream(self._only_of_nodes),
            "GetDebugEvents": stream(self._only_of_nodes),
        }
        return grpc.method_handlers_generic_handler(NAME, methods)

    async def get_flows(self, request: api.GetFlowsRequest, context: Context) -> None:
        """Flows of all nodes, merged by time."""
        await self._begin(context)
        if (reason := self._listed()) and not request.follow:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the relay knows no nodes yet: {reason}")
        merge = FlowMerge(self._pool, request, passed_metadata(context), self._config, self._place, context.write)
        with self._metrics.reading(merge):
            try:
                await merge.run()
            except RefusedError as error:
                await context.abort(error.code, str(error))

    async def get_nodes(self, _: api.GetNodesRequest, context: Context) -> api.GetNodesResponse:
        """Every known node, and how it fares."""
        await self._begin(context)
        answers = await self._ask(lambda stub: stub.ServerStatus(api.ServerStatusRequest(), timeout=CALL_TIMEOUT))
        nodes = [self._node(connection, answers.get(connection.peer.name)) for connection in self._all()]
        return api.GetNodesResponse(nodes=nodes)

    async def get_namespaces(self, _: api.GetNamespacesRequest, context: Context) -> api.GetNamespacesResponse:
        """Namespaces that any node has seen."""
        await self._begin(context)
        answers = await self._ask(lambda stub: stub.GetNamespaces(api.GetNamespacesRequest(), timeout=CALL_TIMEOUT))
        found = {
            (namespace.cluster, namespace.namespace)
            for answer in answers.values()
            if not isinstance(answer, str)
            for namespace in answer.namespaces
        }
        namespaces = [api.Namespace(cluster=cluster, namespace=name) for cluster, name in sorted(found)]
        return api.GetNamespacesResponse(namespaces=namespaces)

    async def server_status(self, _: api.ServerStatusRequest, context: Context) -> api.ServerStatusResponse:
        """The sum over all nodes."""
        await self._begin(context)
        answers = await self._ask(lambda stub: stub.ServerStatus(api.ServerStatusRequest(), timeout=CALL_TIMEOUT))
        good = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
        unavailable = [connection.peer.name for connection in self._all() if connection.peer.name not in good]
        return api.ServerStatusResponse(
            num_flows=sum(answer.num_flows for answer in good.values()),
            max_flows=sum(answer.max_flows for answer in good.values()),
            seen_flows=sum(answer.seen_flows for answer in good.values()),
            uptime_ns=max((answer.uptime_ns for answer in good.values()), default=0),
            flows_rate=sum(answer.flows_rate for answer in good.values()),
            num_connected_nodes=UInt32Value(value=len(good)),
            num_unavailable_nodes=UInt32Value(value=len(unavailable)),
            unavailable_nodes=unavailable[:UNAVAILABLE_NAMES_MOST],
            version=self._version,
        )

    async def _only_of_nodes(self, _: bytes, context: Context) -> NoReturn:
        await self._begin(context)
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "only a node's own server tells of agent and debug events: ask it directly"
        )

    async def _begin(self, context: Context) -> None:
        """Name the relay, and wait while it is connecting to nodes for the first time."""
        await context.send_initial_metadata((("hubble-relay-version", self._version),))
        try:
            async with asyncio.timeout(SETTLE):
                while self._listed() or not self._pool.settled:
                    await self._pool.changed(self._pool.version)
        except TimeoutError:
            return

    def _all(self) -> list[Connection]:
        return [connection for _, connection in sorted(self._pool.connections.items())]

    async def _ask(self, call: Callable[[Any], Coroutine[Any, Any, A]]) -> dict[str, A | str]:
        """The answer of each connected node by name, or why it gave none."""

        async def ask(connection: Connection) -> A | str:
            if connection.line is None:
                return connection.reason
            with connection.line.use() as channel:
                try:
                    return await call(ObserverStub(channel))
                except grpc.aio.AioRpcError as error:
                    return reason_of(error)

        connected = self._pool.connected
        answers = await asyncio.gather(*(ask(connection) for connection in connected))
        return {connection.peer.name: answer for connection, answer in zip(connected, answers, strict=True)}

    def _node(self, connection: Connection, answer: api.ServerStatusResponse | str | None) -> api.Node:
        peer = connection.peer
        tls = api.TLS(enabled=bool(peer.server_name) and not self._config.disable_client_tls)
        if tls.enabled:
            tls.server_name = peer.server_name
        node = api.Node(name=peer.name, address=peer.address, state=NODE_UNAVAILABLE, tls=tls)
        if answer is None:
            return node
        if isinstance(answer, str):
            node.state = NODE_ERROR
            return node
        node.state, node.version = NODE_CONNECTED, answer.version
        node.uptime_ns, node.num_flows = answer.uptime_ns, answer.num_flows
        node.max_flows, node.seen_flows = answer.max_flows, answer.seen_flows
        return node


def passed_metadata(context: Context) -> Metadata:
    """A request's metadata, without what belongs to its own connection."""
    given = context.invocation_metadata() or ()
    return tuple(
        (key, value) for key, value in given if not key.startswith((":", "grpc-")) and key not in _OWN_METADATA
    )
