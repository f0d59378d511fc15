"""The methods of observer.Observer. Answers that stream are written as bytes that are encoded already."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

import grpc
import grpc.aio
from ciliate import __version__

from ciliate_hubble.api import observer_pb2 as pb
from ciliate_hubble.encoding.mask import MaskError, compile_mask
from ciliate_hubble.filters.errors import FilterError
from ciliate_hubble.filters.matcher import Matcher
from ciliate_hubble.observer.agent_events import AgentEvents
from ciliate_hubble.observer.namespaces import Namespaces
from ciliate_hubble.observer.rate import Rate
from ciliate_hubble.observer.reading import Kept, Reading
from ciliate_hubble.observer.span import SpanError, span_of
from ciliate_hubble.ring import Ring
from ciliate_hubble.server import Servicer

VERSION = f"ciliate v{__version__}"
NAME = "observer.Observer"
_METADATA = (("hubble-server-version", VERSION),)

READERS_MOST = 1000
"""GetFlows calls at once."""

Call = grpc.aio.ServicerContext[Any, Any]


class Observer:
    """Answers from what a node keeps."""

    def __init__(
        self, kept: Kept, events: AgentEvents, namespaces: Namespaces, rate: Rate, readers_most: int = READERS_MOST
    ) -> None:
        self._kept = kept
        self._events = events
        self._namespaces = namespaces
        self._rate = rate
        self._readers_most = readers_most
        self._started = time.monotonic_ns()
        self.readers = 0  # GetFlows calls under way

    def servicer(self) -> Servicer:
        """What adds it to a server."""
        return Servicer(NAME, lambda server: server.add_generic_rpc_handlers((self._handlers(),)))

    async def get_flows(self, request: pb.GetFlowsRequest, call: Call) -> None:
        """Flows that match, from and to where the request says."""
        await call.send_initial_metadata(_METADATA)
        try:
            span = span_of(request)
            matcher = Matcher(request.whitelist, request.blacklist, self._kept.tables)
            mask = compile_mask(request.field_mask.paths)
        except (SpanError, FilterError, MaskError) as error:
            await _refuse(call, error)
        if self.readers >= self._readers_most:
            text = f"GetFlows: there are {self.readers} readers already, as many as one node serves; try again later"
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self.readers += 1
        try:
            await _send(Reading(self._kept, span, matcher, mask).messages(), call)
        finally:
            self.readers -= 1

    async def get_agent_events(self, request: pb.GetAgentEventsRequest, call: Call) -> None:
        """What the agent did."""
        await call.send_initial_metadata(_METADATA)
        try:
            span = span_of(request)
        except SpanError as error:
            await _refuse(call, error)
        await _send(self._events.messages(span), call)

    async def get_debug_events(self, request: pb.GetDebugEventsRequest, call: Call) -> None:
        """Nothing: the data path has no debug messages. One who follows waits for them."""
        await call.send_initial_metadata(_METADATA)
        try:
            span = span_of(request)
        except SpanError as error:
            await _refuse(call, error)
        await _send(AgentEvents(1, self._kept.tables.node_name).messages(span), call)

    async def get_nodes(self, request: pb.GetNodesRequest, call: Call) -> NoReturn:
        """Refused: a node knows itself only."""
        await call.send_initial_metadata(_METADATA)
        await call.abort(grpc.StatusCode.UNIMPLEMENTED, "GetNodes: a node does not know the others; ask a relay")

    async def get_namespaces(self, request: pb.GetNamespacesRequest, call: Call) -> pb.GetNamespacesResponse:
        """Namespaces of the last hour's flows."""
        await call.send_initial_metadata(_METADATA)
        found = [pb.Namespace(cluster=cluster, namespace=namespace) for cluster, namespace in self._namespaces]
        return pb.GetNamespacesResponse(namespaces=found)

    async def server_status(self, request: pb.ServerStatusRequest, call: Call) -> pb.ServerStatusResponse:
        """How much there is; the metadata say from when to when."""
        ring = self._kept.ring
        await call.send_initial_metadata((*_METADATA, *_range(ring)))
        return pb.ServerStatusResponse(
            num_flows=ring.kept,
            max_flows=ring.capacity,
            seen_flows=ring.seen,
            uptime_ns=time.monotonic_ns() - self._started,
            version=VERSION,
            flows_rate=self._rate.per_second(time.monotonic()),
        )

    def _handlers(self) -> grpc.GenericRpcHandler:
        stream, answer = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        nodes, namespaces, status = (
            message.SerializeToString
            for message in (pb.GetNodesResponse, pb.GetNamespacesResponse, pb.ServerStatusResponse)
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetFlows": stream(self.get_flows, pb.GetFlowsRequest.FromString),
            "GetAgentEvents": stream(self.get_agent_events, pb.GetAgentEventsRequest.FromString),
            "GetDebugEvents": stream(self.get_debug_events, pb.GetDebugEventsRequest.FromString),
            "GetNodes": answer(self.get_nodes, pb.GetNodesRequest.FromString, nodes),
            "GetNamespaces": answer(self.get_namespaces, pb.GetNamespacesRequest.FromString, namespaces),
            "ServerStatus": answer(self.server_status, pb.ServerStatusRequest.FromString, status),
        }
        return grpc.method_handlers_generic_handler(NAME, handlers)


def _range(ring: Ring) -> Iterator[tuple[str, str]]:
    """Times of the oldest and the newest flow, as metadata."""
    for name, place in (("ciliate-oldest-flow", ring.oldest), ("ciliate-newest-flow", ring.seen - 1)):
        for time_ in ring.read(place, ring.seen, 1).flows["time"].tolist():
            yield name, datetime.fromtimestamp(time_ / 1e9, UTC).isoformat()


async def _send(messages: AsyncIterator[list[bytes]], call: Call) -> None:
    async for some in messages:
        for message in some:
            await call.write(message)


async def _refuse(call: Call, error: ValueError) -> NoReturn:
    await call.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
