"""A reader of a real server, over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from ciliate.health import Health
from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import ObjectChanges, ObjectKey
from ciliate_hubble.api.peer_pb2 import PEER_ADDED, PEER_DELETED, PEER_UPDATED, ChangeNotification, NotifyRequest
from ciliate_hubble.api.peer_pb2_grpc import PeerStub
from ciliate_hubble.peer import service
from ciliate_hubble.peer.nodes import Nodes, PeerNames
from ciliate_hubble.peer.service import Reader, peer_servicer
from ciliate_hubble.server import Listener, Server
from ciliate_store_local.driver import LocalStore

from tests.unit.hubble.peer.test_nodes import OTHER, V4, V6, node
from tests.unit.processes.parts import reached


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore({"path": str(tmp_path / "store.db")}, ())
    yield opened
    await opened.close()


@pytest.fixture
def nodes(store: LocalStore) -> Nodes:
    return Nodes(store, PeerNames("default", 4244))


@pytest.fixture
async def stub(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Any]:
    health = Health("hubble")
    server = Server([peer_servicer(nodes)], [Listener(str(tmp_path / "s.sock"), "socket")], health)
    tasks = [asyncio.create_task(task) for task in (nodes.run(), server.run())]
    await reached(lambda: not health.reasons, 10)
    async with grpc.aio.insecure_channel(f"unix://{tmp_path / 's.sock'}") as channel:
        yield PeerStub(channel)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def read(stream: Any, count: int) -> list[tuple[str, str, int]]:
    found: list[ChangeNotification] = [await asyncio.wait_for(stream.read(), 10) for _ in range(count)]
    return [(told.name, told.address, told.type) for told in found]


async def test_a_reader_gets_all_nodes_then_each_change_that_concerns_it(store: LocalStore, stub: Any) -> None:
    await store.create(node("b", V4))
    await store.create(node("a", V6, OTHER))
    stream = stub.Notify(NotifyRequest())
    assert await read(stream, 2) == [("a", "[fd00::1]:4244", PEER_ADDED), ("b", "10.0.0.1:4244", PEER_ADDED)]
    await store.update(node("b", V4, encryption={"key": 1}))
    await store.update(node("b", ("InternalIP", "10.0.0.9")))
    assert await read(stream, 1) == [("b", "10.0.0.9:4244", PEER_UPDATED)]
    await store.delete(CILIUM_NODE, "a")
    assert await read(stream, 1) == [("a", "[fd00::1]:4244", PEER_DELETED)]
    await store.create(node("a", V4))
    assert await read(stream, 1) == [("a", "10.0.0.1:4244", PEER_ADDED)]
    again = stub.Notify(NotifyRequest())
    assert len(await read(again, 2)) == 2


async def test_a_node_without_an_address_is_told_and_updated_when_it_has_one(store: LocalStore, stub: Any) -> None:
    await store.create(node("new"))
    stream = stub.Notify(NotifyRequest())
    assert await read(stream, 1) == [("new", "", PEER_ADDED)]
    await store.update(node("new", V4))
    assert await read(stream, 1) == [("new", "10.0.0.1:4244", PEER_UPDATED)]


async def test_a_reader_that_comes_before_the_nodes_are_known_waits_for_them(nodes: Nodes, store: LocalStore) -> None:
    reader = Reader()
    listening = asyncio.create_task(nodes.listen(reader))
    await store.create(node("a", V4))
    following = asyncio.create_task(nodes.run())
    first = await asyncio.wait_for(reader.take(), 10)
    assert first is not None
    assert first.name == "a"
    await listening
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_stream_that_falls_too_far_behind_ends_with_an_error_and_the_next_has_all(
    nodes: Nodes, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader reads nothing: what grpc's own buffers hold is sent, the rest waits for it."""
    monkeypatch.setattr(service, "MOST", 100)
    stream = stub.Notify(NotifyRequest())
    padding = "n" * 200

    async def flood() -> None:
        for number in range(100_000):
            nodes.apply(ObjectChanges(upserts=[node(f"{padding}{number}", V4)]))
            nodes.apply(ObjectChanges(deletes=[ObjectKey("", f"{padding}{number}")]))
            if number % 20 == 0:
                await asyncio.sleep(0)
            if not nodes.listeners:
                return

    nodes.apply(ObjectChanges(upserts=[node("stays", V4)]))
    assert await read(stream, 1) == [("stays", "10.0.0.1:4244", PEER_ADDED)]
    await asyncio.wait_for(flood(), 60)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(30):
            while True:
                await stream.read()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await read(stub.Notify(NotifyRequest()), 1) == [("stays", "10.0.0.1:4244", PEER_ADDED)]


async def test_a_reader_that_leaves_is_forgotten(nodes: Nodes, stub: Any) -> None:
    stream = stub.Notify(NotifyRequest())
    await reached(lambda: bool(nodes.listeners), 10)
    stream.cancel()
    await reached(lambda: not nodes.listeners, 10)
