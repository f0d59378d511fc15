"""Sentences about objects, as Events in a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ciliate import recorder
from ciliate.recorder import EVENT, Recorder
from ciliate.store import Object
from ciliate_store_local.driver import LocalStore

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "uid": "u1"}}
NODE = {"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "n1"}}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    """One store."""
    found = LocalStore({"path": str(tmp_path / "store.db")}, ())
    yield found
    await found.close()


async def events(store: LocalStore, count: int, counted: int = 0) -> list[Object]:
    """The Events, once there are so many, and the first was counted so often."""
    async with asyncio.timeout(10):
        while True:
            found = (await store.list(EVENT)).items
            if len(found) >= count and found[0].get("count", 0) >= counted:
                return found
            await asyncio.sleep(0.01)


async def test_an_event_says_what_happened_to_which_object(store: LocalStore) -> None:
    one = Recorder(store, "ciliate-agent", "n1")
    task = asyncio.create_task(one.run())
    one.warn(POD, "NoAddress", "no address is free")
    one.note(NODE, "RangeAssigned", "10.0.0.0/24")
    found = {event["reason"]: event for event in await events(store, 2)}
    event = found["NoAddress"]
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "default", "uid": "u1",
    }  # fmt: skip
    assert (event["type"], event["message"], event["count"]) == ("Warning", "no address is free", 1)
    assert event["source"] == {"component": "ciliate-agent", "host": "n1"}
    assert (found["RangeAssigned"]["type"], found["RangeAssigned"]["metadata"]["namespace"]) == ("Normal", "default")
    task.cancel()


async def test_what_recurs_is_counted_in_one_event_over_restarts(store: LocalStore) -> None:
    for life in (1, 2):
        one = Recorder(store, "ciliate-agent", "n1", pause=0.01)
        task = asyncio.create_task(one.run())
        for number in range(50):
            one.warn(POD, "NoAddress", f"try {number}")
            await asyncio.sleep(0)
        (event,) = await events(store, 1, 50 * life)
        task.cancel()
    (event,) = await events(store, 1)
    assert (event["count"], event["message"]) == (100, "try 49")
    assert event["firstTimestamp"] <= event["lastTimestamp"]


async def test_a_flood_is_bounded_in_writes_and_in_memory(store: LocalStore) -> None:
    one = Recorder(store, "ciliate-agent", "n1")
    for number in range(recorder.KNOWN_MOST + 10):
        one.warn({**POD, "metadata": {**POD["metadata"], "uid": str(number)}}, "NoAddress", "none")  # type: ignore[dict-item]
    assert one.lost == 10
    task = asyncio.create_task(one.run())
    assert len(await events(store, recorder.BURST)) < recorder.BURST + 10
    task.cancel()


async def test_an_event_that_the_store_has_dropped_is_written_anew(store: LocalStore) -> None:
    one = Recorder(store, "ciliate-agent", "n1", pause=0.0)
    task = asyncio.create_task(one.run())
    one.warn(POD, "NoAddress", "none")
    (event,) = await events(store, 1)
    await store.delete(EVENT, event["metadata"]["name"], "default")
    one.warn(POD, "NoAddress", "none")
    (event,) = await events(store, 1)
    assert event["count"] == 2
    task.cancel()
