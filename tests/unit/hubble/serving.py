"""A gRPC server that gives prepared answers and keeps requests, for what a client makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from ciliate_hubble.api import flow_pb2, observer_pb2, observer_pb2_grpc, peer_pb2, peer_pb2_grpc
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

ANSWERS = Path(__file__).with_name("answers.jsonl")
REQUESTS = Path(__file__).with_name("requests.txt")
"""Command lines of `hubble observe` and the request that each must make: `$ flags`, then JSON or `refused`."""
CHANGES = (
    peer_pb2.ChangeNotification(
        name="k/n1",
        address="10.0.0.1:4244",
        type="PEER_ADDED",
        tls=peer_pb2.TLS(server_name="n1.k.hubble-grpc.cilium.io"),
    ),
    peer_pb2.ChangeNotification(name="k/n1", address="10.0.0.1:4244", type="PEER_DELETED"),
    peer_pb2.ChangeNotification(name="k/n2", type="PEER_UPDATED"),
)


def requests() -> list[tuple[str, str]]:
    """Command lines and what they come to."""
    lines = REQUESTS.read_text().splitlines()
    return [(line[2:], result) for line, result in zip(lines[::2], lines[1::2], strict=True)]


def answers() -> list[observer_pb2.GetFlowsResponse]:
    """Flows of every kind, losses, and what a relay says of nodes."""
    return [json_format.Parse(line, observer_pb2.GetFlowsResponse()) for line in ANSWERS.read_text().splitlines()]


def nodes() -> observer_pb2.GetNodesResponse:
    """Nodes in every state."""
    tls = observer_pb2.TLS(enabled=True, server_name="n1.k.hubble-grpc.cilium.io")
    known: dict[str, Any] = {"version": "cilium v1.19.4", "uptime_ns": 3723 * 10**9, "max_flows": 4095}
    return observer_pb2.GetNodesResponse(
        nodes=[
            observer_pb2.Node(
                name="k/n1",
                address="10.0.0.1:4244",
                state="NODE_CONNECTED",
                tls=tls,
                num_flows=100,
                seen_flows=5000,
                **known,
            ),
            observer_pb2.Node(name="k/n2", address="10.0.0.2:4244", state="NODE_UNAVAILABLE"),
            observer_pb2.Node(name="k/n3", address="10.0.0.2:4244", state="NODE_ERROR", tls=observer_pb2.TLS()),
            observer_pb2.Node(
                name="n4",
                state="NODE_CONNECTED",
                uptime_ns=86400 * 10**9,
                num_flows=4095,
                max_flows=4095,
                seen_flows=8640000,
            ),
        ]
    )


def namespaces() -> observer_pb2.GetNamespacesResponse:
    """Namespaces of two clusters."""
    found = (("k", "shop"), ("k", "kube-system"), ("b", "shop"))
    return observer_pb2.GetNamespacesResponse(
        namespaces=[observer_pb2.Namespace(cluster=cluster, namespace=namespace) for cluster, namespace in found]
    )


def server_status() -> observer_pb2.ServerStatusResponse:
    """A relay's state."""
    status = observer_pb2.ServerStatusResponse(
        num_flows=4094,
        max_flows=8190,
        seen_flows=1234567,
        uptime_ns=3723 * 10**9,
        unavailable_nodes=["k/n3"],
        version="hubble-relay v1.19.4",
        flows_rate=12.3456,
    )
    status.num_connected_nodes.value, status.num_unavailable_nodes.value = 2, 1
    return status


def agent_events() -> Iterator[observer_pb2.GetAgentEventsResponse]:
    """Agent events of several kinds."""
    labels = ["k8s:app=web"]
    update = flow_pb2.EndpointUpdateNotification(id=7, labels=labels, pod_name="p", namespace="n")
    ipcache = flow_pb2.IPCacheNotification(cidr="10.0.0.1/32", identity=5, host_ip="1.1.1.1", encrypt_key=3)
    ipcache.old_identity.value = 4
    policy = flow_pb2.PolicyUpdateNotification(labels=["a=b", "c"], revision=5, rule_count=2)
    regenerated = flow_pb2.EndpointRegenNotification(id=7, labels=labels, error="bad")
    started = flow_pb2.TimeNotification(time=Timestamp(seconds=1767323045))
    for event in (
        flow_pb2.AgentEvent(type="AGENT_STARTED", agent_start=started),
        flow_pb2.AgentEvent(type="POLICY_UPDATED", policy_update=policy),
        flow_pb2.AgentEvent(type="ENDPOINT_REGENERATE_FAILURE", endpoint_regenerate=regenerated),
        flow_pb2.AgentEvent(type="ENDPOINT_CREATED", endpoint_update=update),
        flow_pb2.AgentEvent(type="IPCACHE_UPSERTED", ipcache_update=ipcache),
        flow_pb2.AgentEvent(unknown=flow_pb2.AgentEventUnknown(type="x", notification="y")),
    ):
        yield observer_pb2.GetAgentEventsResponse(
            agent_event=event, node_name="k/n1", time=Timestamp(seconds=1767323045)
        )


class Answering(observer_pb2_grpc.ObserverServicer, peer_pb2_grpc.PeerServicer):
    """Gives what is prepared; what was asked for flows is in `asked`. The mask of a request is not honoured."""

    def __init__(self) -> None:
        self.asked: list[observer_pb2.GetFlowsRequest] = []
        self.flows = answers()
        self.metadata: dict[str, Any] = {}

    def GetFlows(self, request: Any, context: Any) -> Iterator[observer_pb2.GetFlowsResponse]:  # noqa: N802
        """All answers."""
        self.asked.append(request)
        self.metadata = dict(context.invocation_metadata())
        return iter(self.flows)

    def GetAgentEvents(self, request: Any, context: Any) -> Iterator[observer_pb2.GetAgentEventsResponse]:  # noqa: N802
        """All agent events."""
        return agent_events()

    def GetNodes(self, request: Any, context: Any) -> observer_pb2.GetNodesResponse:  # noqa: N802
        """All nodes."""
        return nodes()

    def GetNamespaces(self, request: Any, context: Any) -> observer_pb2.GetNamespacesResponse:  # noqa: N802
        """All namespaces."""
        return namespaces()

    def ServerStatus(self, request: Any, context: Any) -> observer_pb2.ServerStatusResponse:  # noqa: N802
        """A relay's state."""
        return server_status()

    def Notify(self, request: Any, context: Any) -> Iterator[peer_pb2.ChangeNotification]:  # noqa: N802
        """Nodes that come and go."""
        return iter(CHANGES)


class Serving:
    """The server, at an address as `unix:/path`."""

    def __init__(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        self.answering = Answering()
        self.health = health.HealthServicer()
        self.health.set("hubble.server.Observer", health_pb2.HealthCheckResponse.SERVING)
        self._server = grpc.server(ThreadPoolExecutor(4))
        observer_pb2_grpc.add_ObserverServicer_to_server(self.answering, self._server)
        peer_pb2_grpc.add_PeerServicer_to_server(self.answering, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def stop(self) -> None:
        """End."""
        self._server.stop(0).wait()
