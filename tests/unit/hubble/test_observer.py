"""The observer over gRPC, as clients meet it: on its Unix socket and on TCP, with bad requests and bad readers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ciliate.health import Health
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api import observer_pb2_grpc
from ciliate_hubble.encoding.flows import FlowEncoders
from ciliate_hubble.losses import LossSource
from ciliate_hubble.observer.agent_events import AgentEvents
from ciliate_hubble.observer.namespaces import Namespaces
from ciliate_hubble.observer.rate import Rate
from ciliate_hubble.observer.reading import Kept
from ciliate_hubble.observer.servicer import NAME, VERSION, Observer
from ciliate_hubble.server import HEALTH_NAME, Listener, Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.unit.hubble.node import SPARE, Node, random_records
from tests.unit.hubble.test_reading import records

LIMIT = 20.0


class Served:
    """A node's observer and a client's stub."""

    def __init__(self, node: Node, server: Server, events: AgentEvents, observer: Observer, target: str) -> None:
        self.node = node
        self.server = server
        self.events = events
        self.observer = observer
        self.target = target
        self.channel = grpc.aio.insecure_channel(target)
        self.stub = observer_pb2_grpc.ObserverStub(self.channel)

    def put(self, count: int) -> None:
        self.node.put(records(self.node.ring.seen, count))
        self.node.ring.wake()


@asynccontextmanager
async def serving(folder: Path, capacity: int = 4095, listen: str = "") -> AsyncIterator[Served]:
    node = Node(capacity=capacity)
    events = AgentEvents(100, "node1")
    namespaces, rate = Namespaces(node.tables.ends), Rate(0.0)
    node.ingest.sinks.append(namespaces.take)
    kept = Kept(node.ring, node.tables, node.losses, FlowEncoders(node.tables), 0.2)
    observer = Observer(kept, events, namespaces, rate, readers_most=200)
    status = Health("hubble")
    listeners = [Listener(str(folder / "h.sock"), "hubble.socket_path")]
    listeners += [Listener(listen, "hubble.listen_address")] if listen else []
    server = Server([observer.servicer()], listeners, status)
    running = asyncio.create_task(server.run())
    async with asyncio.timeout(LIMIT):
        while status.reasons:
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
    served = Served(node, server, events, observer, f"unix://{folder / 'h.sock'}")
    try:
        yield served
    finally:
        await served.channel.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def collect(call: Any) -> list[Any]:
    async with asyncio.timeout(LIMIT):
        return [answer async for answer in call]


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await collect(call)
    return error.value.code(), error.value.details() or ""


async def test_flows_status_and_namespaces_over_both_addresses(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=63, listen="127.0.0.1:0") as served:
        assert (tmp_path / "h.sock").stat().st_mode & 0o777 == 0o600
        served.put(100)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.server.ports['hubble.listen_address']}") as channel:
            for stub in (served.stub, observer_pb2_grpc.ObserverStub(channel)):
                call = stub.GetFlows(api.GetFlowsRequest(number=7))
                assert [answer.flow.source.pod_name for answer in await collect(call)][-1] == "web-1"
                assert ("hubble-server-version", VERSION) in list(await call.initial_metadata())
                asked = stub.ServerStatus(api.ServerStatusRequest())
                metadata: dict[str, Any] = dict(await asked.initial_metadata())
                assert metadata["ciliate-oldest-flow"] < metadata["ciliate-newest-flow"]
                status = await asked
                assert (status.num_flows, status.max_flows, status.seen_flows) == (63, 63, 100)
                assert status.version == VERSION
                assert status.uptime_ns > 0
                assert not status.HasField("num_connected_nodes")
                found = await stub.GetNamespaces(api.GetNamespacesRequest())
                assert [(n.cluster, n.namespace) for n in found.namespaces] == [
                    ("default", "default"),
                    ("default", "shop"),
                ]


async def test_asked_for_more_than_is_kept_the_answer_is_what_there_is(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=63) as served:
        served.put(500)
        assert len(await collect(served.stub.GetFlows(api.GetFlowsRequest(number=2**64 - 1)))) == 63


async def test_bad_requests_are_refused_by_field(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        flows = served.stub.GetFlows
        bad = api.GetFlowsRequest()
        bad.whitelist.add().source_ip.extend(["10.0.0.1", "nonsense"])
        code, text = await refused(flows(bad))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert text.startswith("whitelist[0].source_ip[1]: 'nonsense'")
        code, text = await refused(flows(api.GetFlowsRequest(first=True, follow=True)))
        assert (code, text.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "first, follow")
        masked = api.GetFlowsRequest()
        masked.field_mask.paths.append("sauce")
        code, text = await refused(flows(masked))
        assert (code, text.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "field_mask.paths[0]")
        code, _ = await refused(served.stub.GetAgentEvents(api.GetAgentEventsRequest(first=True, follow=True)))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        code, _ = await refused(served.stub.GetDebugEvents(api.GetDebugEventsRequest(first=True, follow=True)))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await served.stub.GetNodes(api.GetNodesRequest())
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        raw: Any = served.channel.unary_stream("/observer.Observer/GetFlows")
        code, _ = await refused(raw(b"\xff\xff\xff"))
        assert code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN)
        assert len(await collect(flows(api.GetFlowsRequest()))) == 0, "it still answers"


async def test_debug_events_are_none_and_one_who_follows_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert await collect(served.stub.GetDebugEvents(api.GetDebugEventsRequest(number=5))) == []
        following = served.stub.GetDebugEvents(api.GetDebugEventsRequest(follow=True))
        await following.initial_metadata()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(following.read(), 0.2)
        following.cancel()


async def test_health_and_reflection(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        checks: Any = health_pb2_grpc.HealthStub(served.channel)
        for name in ("", HEALTH_NAME):
            answer = await checks.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub
        ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (listed,) = await collect(reflection(served.channel).ServerReflectionInfo(ask))
        names = {service.name for service in listed.list_services_response.service}
        assert {NAME, "grpc.health.v1.Health"} <= names


async def test_a_reader_that_never_reads_costs_no_memory_and_is_told_in_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=63) as served:
        call = served.stub.GetFlows(api.GetFlowsRequest(follow=True))
        await call.initial_metadata()
        async with asyncio.timeout(LIMIT):
            while not served.node.ring.waiting:
                await asyncio.sleep(0.01)
        total = 0
        for _ in range(20):
            served.put(SPARE // 2)
            total += SPARE // 2
            await asyncio.sleep(0.005)  # its window fills, and it stays where it is
        assert served.node.ring.rows().nbytes < 4_000_000
        flows = lost = 0
        async with asyncio.timeout(LIMIT):
            while flows + lost < total:
                answer = await call.read()
                flows += answer.HasField("flow")
                lost += answer.lost_events.num_events_lost
                if answer.HasField("lost_events"):
                    assert answer.lost_events.source == LossSource.HUBBLE_RING_BUFFER
        assert (flows + lost, lost > 0) == (total, True)
        call.cancel()


async def test_200_readers_each_get_their_flows_and_one_too_many_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        request = api.GetFlowsRequest(follow=True)
        request.whitelist.add().source_pod.append("default/web")
        calls = [served.stub.GetFlows(request) for _ in range(200)]
        async with asyncio.timeout(LIMIT):
            while served.node.ring.waiting < 200:
                await asyncio.sleep(0.01)
        assert served.observer.readers == 200
        code, text = await refused(served.stub.GetFlows(request))
        assert (code, "200 readers" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        for _ in range(10):
            served.put(30)
            await asyncio.sleep(0)

        async def read(call: Any) -> int:
            return len([await call.read() for _ in range(100)])

        async with asyncio.timeout(LIMIT):
            assert await asyncio.gather(*map(read, calls)) == [100] * 200
        for call in calls:
            call.cancel()
        async with asyncio.timeout(LIMIT):
            while served.observer.readers:
                await asyncio.sleep(0.01)


async def test_a_server_takes_the_place_of_one_that_was_killed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "h.sock"))
    async with serving(tmp_path) as served:
        served.node.put(random_records(10, 1))
        assert await collect(served.stub.GetFlows(api.GetFlowsRequest()))
