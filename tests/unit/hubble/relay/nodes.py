"""Nodes for a relay under test: real servers, on real addresses, whose flows the test chooses."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import structlog
from ciliate.health import Health
from ciliate.store import ObjectChanges, ObjectKey
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api.flow_pb2 import Flow, LostEvent
from ciliate_hubble.api.observer_pb2_grpc import ObserverServicer, add_ObserverServicer_to_server
from ciliate_hubble.certificates.authority import Pair, issue, make_authority
from ciliate_hubble.certificates.credentials import server_credentials
from ciliate_hubble.certificates.material import Holder, Material
from ciliate_hubble.certificates.names import leaves
from ciliate_hubble.peer.nodes import Nodes, PeerNames
from ciliate_hubble.peer.service import peer_servicer
from ciliate_hubble.server import Listener, Server, Servicer
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.processes.parts import reached

DAY = datetime.timedelta(days=1)


def stamp(nanoseconds: int) -> Timestamp:
    """A time."""
    made = Timestamp()
    made.FromNanoseconds(nanoseconds)
    return made


def response(node: str, at: int, name: str = "") -> api.GetFlowsResponse:
    """A flow of a node at a time in ns."""
    time = stamp(at)
    return api.GetFlowsResponse(flow=Flow(time=time, node_name=node, uuid=name), node_name=node, time=time)


def lost(node: str, count: int) -> api.GetFlowsResponse:
    """A loss, which has no time of its own."""
    return api.GetFlowsResponse(lost_events=LostEvent(num_events_lost=count), node_name=node)


class Held(Holder):
    """Material that a test gives."""

    def __init__(self, material: Material) -> None:
        super().__init__(Health("test"), "certificate", structlog.get_logger("test"))
        self.take(material, "the test")

    async def run(self) -> None:
        """Nothing changes by itself."""


class Trust:
    """A CA, and material that it signed."""

    def __init__(self) -> None:
        self.authority = make_authority(datetime.datetime.now(datetime.UTC), 900 * DAY)

    def material(self, number: int, trusted: Iterable[Pair] = ()) -> Material:
        """For the leaf of a number: 0 a node's server, 1 the relay as a client, 2 the relay's server."""
        pair = issue(self.authority, leaves("default")[number], datetime.datetime.now(datetime.UTC), DAY)
        bundle = b"".join(one.certificate_pem for one in trusted or (self.authority,))
        return Material(pair.certificate_pem, pair.key_pem, bundle)


@dataclass(eq=False)
class Node(ObserverServicer):
    """One node. `history` is what it has; `add` is what happens now."""

    name: str
    keeper: Held | None = None
    history: list[api.GetFlowsResponse] = field(default_factory=list)
    requests: list[api.GetFlowsRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    refuse: tuple[grpc.StatusCode, str] | None = None
    sent: list[int] = field(default_factory=list)  # messages of each request
    hangs: bool = False  # streams are opened and nothing is sent
    port: int = 0
    namespaces: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._held: socket.socket | None = None

    async def start(self) -> None:
        """Serve, on the port of before if there is one."""
        health = Health(self.name)
        credentials = self._credentials if self.keeper is not None else None
        listener = Listener(f"127.0.0.1:{self.port}", "tcp", credentials)
        server = Server(
            [Servicer("observer.Observer", lambda s: add_ObserverServicer_to_server(self, s))], [listener], health
        )
        self._task = asyncio.create_task(server.run())
        await reached(lambda: not health.reasons, 10)
        self.port = server.ports["tcp"]

    def nowhere(self) -> None:
        """Have an address at which nobody listens, and which nobody else gets meanwhile."""
        self._held = socket.socket()
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]

    async def stop(self) -> None:
        """End at once; open streams break."""
        if self._held is not None:
            self._held.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def add(self, *flows: api.GetFlowsResponse) -> None:
        """Flows that happen now."""
        async with self._news:
            self.history.extend(flows)
            self._news.notify_all()

    async def _credentials(self) -> grpc.ServerCredentials:
        assert self.keeper is not None
        return server_credentials(self.keeper, client_certificates=True)

    async def GetFlows(self, request: api.GetFlowsRequest, context: Any) -> AsyncIterator[api.GetFlowsResponse]:  # noqa: N802
        self.requests.append(request)
        call = len(self.sent)
        self.sent.append(0)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refuse is not None:
            await context.abort(*self.refuse)
        since = request.since.ToNanoseconds() if request.HasField("since") else 0
        at = len(self.history) if request.follow and not request.number and not since else 0
        if request.number and not since and not request.first:
            flows = [index for index, found in enumerate(self.history) if found.HasField("flow")]
            at = flows[-request.number] if request.number <= len(flows) else 0
        sent = 0
        while True:
            if self.hangs:
                await asyncio.Event().wait()
            while at < len(self.history):
                found = self.history[at]
                at += 1
                if not found.HasField("lost_events") and found.time.ToNanoseconds() < since:
                    continue
                if request.number and not request.follow and sent == request.number:
                    return
                sent += found.HasField("flow")
                self.sent[call] += 1
                yield found
            if not request.follow:
                return
            async with self._news:
                while at >= len(self.history):
                    await self._news.wait()

    async def ServerStatus(self, request: Any, context: Any) -> api.ServerStatusResponse:  # noqa: N802
        number = len(self.history)
        return api.ServerStatusResponse(
            num_flows=number, max_flows=4095, seen_flows=number + 5, uptime_ns=7, flows_rate=1.5, version="cilium v1"
        )

    async def GetNamespaces(self, request: Any, context: Any) -> api.GetNamespacesResponse:  # noqa: N802
        found = [api.Namespace(cluster=cluster, namespace=name) for cluster, name in self.namespaces]
        return api.GetNamespacesResponse(namespaces=found)


class PeerServer:
    """A peer service on a Unix socket and on TCP, that tells of the nodes that a test names."""

    def __init__(self, path: str, tls: bool = True) -> None:
        self.path = path
        self.nodes = Nodes(None, PeerNames("default", None, tls=tls))  # type: ignore[arg-type]
        self.nodes.apply(ObjectChanges())
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve."""
        health = Health("peers")
        listeners = [Listener(self.path, "socket"), Listener("127.0.0.1:0", "tcp")]
        server = Server([peer_servicer(self.nodes)], listeners, health)
        self._task = asyncio.create_task(server.run())
        await reached(lambda: not health.reasons, 10)
        self.port = server.ports["tcp"]

    async def stop(self) -> None:
        """End at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def put(self, node: Node) -> None:
        """A node is there; its port is part of its address, as no two can have one address here."""
        entries = [{"type": "InternalIP", "ip": "127.0.0.1"}]
        obj = {"metadata": {"name": node.name}, "spec": {"addresses": entries}}
        self.nodes.names = PeerNames("default", node.port, tls=node.keeper is not None)
        self.nodes.apply(ObjectChanges(upserts=[obj]))

    def drop(self, node: Node) -> None:
        """A node is gone."""
        self.nodes.apply(ObjectChanges(deletes=[ObjectKey("", node.name)]))
