"""The data path's events reach a process that doesn't drain them, through the ring in shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from ciliate.batches import Batches
from ciliate.model.base import pack_address
from ciliate.model.event import EVENT
from ciliate_node.peers.batches import SharedBatches
from ciliate_node.peers.ring import ring_path

from tests.node.cni_node import Node, require_root


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=117)
    try:
        node.start()
        yield node
    finally:
        path = ring_path(node.run_dir)
        node.close()
        path.unlink(missing_ok=True)


async def test_a_process_beside_the_agent_sees_the_events_also_after_the_agent_was_killed(node: Node) -> None:
    batches = Batches(8192)
    shared = SharedBatches(batches, node.run_dir, 0)
    subscription = batches.subscribe()
    client, server = node.add(), node.add()
    for life in range(2):
        address = next(a for a in server.addresses if (":" in a) == bool(life))
        wanted = pack_address(address)
        async with asyncio.timeout(30):
            await asyncio.to_thread(client.run, "ping", "-c", "1", "-W", "5", address)
            seen = 0
            while not seen:
                delivery = subscription.take()
                for batch in delivery.events if delivery is not None else []:
                    assert batch.dtype == EVENT
                    seen += sum(bytes(row) == wanted for row in batch["destination"])
                await asyncio.sleep(0.01)
        if not life:
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
    assert batches.lost() == 0
    subscription.close()
    async with asyncio.timeout(10):
        while shared.following:
            await asyncio.sleep(0.01)
