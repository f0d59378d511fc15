"""The gRPC server: health, reflection, and addresses that fail or come late."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from ciliate.health import Health
from ciliate_hubble.server import HEALTH_NAME, Listener, Server, Servicer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.unit.hubble.relay.proxy import Network
from tests.unit.processes.parts import reached


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    task = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "hubble.sock"


async def check(channel: grpc.aio.Channel, name: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status)


async def test_both_addresses_answer_for_the_process_and_for_the_observer(path: Path) -> None:
    status = Health("hubble")
    listeners = [Listener(str(path), "hubble.socket_path"), Listener("127.0.0.1:0", "hubble.listen_address")]
    async with running(Server((), listeners, status)) as server:
        await reached(lambda: not status.reasons, 10)
        assert path.stat().st_mode & 0o777 == 0o600
        for target in (f"unix://{path}", f"127.0.0.1:{server.ports['hubble.listen_address']}"):
            async with grpc.aio.insecure_channel(target) as channel:
                await server.set_serving(True)
                assert [await check(channel, name) for name in ("", HEALTH_NAME)] == [1, 1]
                await server.set_serving(False)
                assert [await check(channel, name) for name in ("", HEALTH_NAME)] == [1, 2]
    assert status.reasons, "it does not listen any more"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_services_and_messages_can_be_asked_for(path: Path, version: str) -> None:
    from ciliate_hubble.peer.nodes import Nodes, PeerNames
    from ciliate_hubble.peer.service import peer_servicer

    peers: Servicer = peer_servicer(Nodes(None, PeerNames("default", 4244)))  # type: ignore[arg-type]
    status = Health("hubble")
    async with running(Server([peers], [Listener(str(path), "socket")], status)):
        await reached(lambda: not status.reasons, 10)
        async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
            ask: Any = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )

            def questions() -> Iterable[reflection_pb2.ServerReflectionRequest]:
                yield reflection_pb2.ServerReflectionRequest(list_services="")
                yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="peer.ChangeNotification")

            listed, described = [answer async for answer in ask(questions(), timeout=10)]
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {"peer.Peer", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
    assert any(b"ChangeNotification" in file for file in described.file_descriptor_response.file_descriptor_proto)


async def test_an_address_that_is_taken_is_named_and_served_when_it_is_free_again(path: Path) -> None:
    status = Health("hubble")
    other = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{other.getsockname()[1]}"
    listeners = [Listener(str(path), "hubble.socket_path"), Listener(address, "hubble.listen_address")]
    async with running(Server((), listeners, status)):
        await reached(lambda: "is another server there?" in status.conditions["hubble.listen_address"], 10)
        await reached(lambda: not status.conditions["hubble.socket_path"], 10)
        other.close()
        await reached(lambda: not status.reasons, 10)


async def test_a_path_that_is_too_long_for_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    status = Health("hubble")
    async with running(Server((), [Listener(str(tmp_path / ("x" * 120)), "hubble.socket_path")], status)):
        await reached(lambda: "longer than the 107 bytes" in status.conditions["hubble.socket_path"], 10)


async def test_a_call_whose_connection_is_dead_ends_with_the_server() -> None:
    status = Health("hubble")
    async with running(Server((), [Listener("127.0.0.1:0", "tcp")], status)) as server:
        await reached(lambda: not status.reasons, 10)
        network = Network(server.ports["tcp"])
        await network.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{network.port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            call = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
            network.cut()  # the server never hears that the call is over
            call.cancel()
        assert calls_under_way(), "otherwise this test shows nothing"
    assert not calls_under_way()
    await network.stop()


def calls_under_way() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("rpc_task", "HandleExc"))]
