"""Watching: order, no gaps, expiry, fields, and being woken by another process's commit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from ciliate.model.kinds import NODE, POD
from ciliate.store import ExpiredError, InvalidError, WatchEvent, follow
from ciliate_store_local.driver import LocalStore

from tests.unit.store_local.conftest import OpenStore, pod


async def collect(store: LocalStore, count: int, since: str, **selection: Any) -> list[WatchEvent]:
    """The next `count` events of pods."""
    events: list[WatchEvent] = []
    async with asyncio.timeout(20), aclosing(store.watch(POD, since, **selection)) as watch:  # type: ignore[type-var]
        async for event in watch:
            events.append(event)
            if len(events) == count:
                break
    return events


def brief(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type.value, event.object["metadata"]["name"]) for event in events]


async def test_a_commit_in_another_store_wakes_at_once(open_store: OpenStore) -> None:
    reader, writer = open_store(poll=60), open_store()
    since = (await reader.list(POD)).revision
    watching = asyncio.create_task(collect(reader, 1, since))
    await asyncio.sleep(0)
    began = time.perf_counter()
    await writer.create(pod("web"))
    assert brief(await watching) == [("ADDED", "web")]
    assert time.perf_counter() - began < 5, "woken by polling, not by the datagram"


async def test_a_watch_from_a_forgotten_revision_expires(open_store: OpenStore) -> None:
    store = open_store(history=50)
    since = (await store.list(POD)).revision
    await asyncio.gather(*(store.create(pod(f"p{n}")) for n in range(600)))
    with pytest.raises(ExpiredError, match="list again"):
        await collect(store, 1, since)
    newest = (await store.list(POD)).revision
    assert len(await collect(store, 50, str(int(newest) - 50))) == 50


async def test_history_is_bounded_by_bytes_too(open_store: OpenStore, path: Path) -> None:
    store = open_store(history_bytes=1_000_000)
    text = "x" * 10_000
    for batch in range(6):
        await asyncio.gather(*(store.create(pod(f"p{batch}-{n}", text=text)) for n in range(100)))
    newest = int((await store.list(POD)).revision)
    with pytest.raises(ExpiredError):
        await collect(store, 1, str(newest - 400))
    await collect(store, 50, str(newest - 50))


async def test_a_watch_that_falls_behind_while_it_waits_expires(open_store: OpenStore) -> None:
    store = open_store(history=50)
    async with aclosing(store.watch(POD, (await store.list(POD)).revision)) as watch:  # type: ignore[type-var]
        await store.create(pod("first"))
        await anext(watch)
        await asyncio.gather(*(store.create(pod(f"p{n}")) for n in range(600)))
        with pytest.raises(ExpiredError):
            await anext(watch)


async def test_revisions_of_the_future_expire_and_nonsense_is_refused(store: LocalStore) -> None:
    with pytest.raises(ExpiredError):
        await collect(store, 1, "999999")
    with pytest.raises(InvalidError, match="not a number"):
        await collect(store, 1, "latest")


async def test_follow_bridges_an_expired_watch_without_a_gap(open_store: OpenStore) -> None:
    store = open_store(history=20)
    names: set[str] = set()
    async with asyncio.timeout(20), aclosing(follow(store, POD)) as changes:  # type: ignore[type-var]
        await anext(changes)
        for batch in range(4):
            await asyncio.gather(*(store.create(pod(f"p{batch}-{n}")) for n in range(300)))
            await store.delete(POD, f"p{batch}-0", "default")
            wanted = {f"p{b}-{n}" for b in range(batch + 1) for n in range(1, 300)}
            while names != wanted:
                change = await anext(changes)
                names |= {o["metadata"]["name"] for o in change.upserts}
                names -= {key.name for key in change.deletes}


async def test_sockets_of_dead_processes_are_removed(store: LocalStore, path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from ciliate.model.kinds import NODE\nfrom ciliate_store_local.driver import LocalStore\n"
        "async def main():\n"
        "    store = LocalStore({'path': sys.argv[1]}, ())\n"
        "    since = (await store.list(NODE)).revision\n"
        "    async for event in store.watch(NODE, since): print('woken', flush=True)\n"
        "asyncio.run(main())\n"
    )
    folder = path.with_name("store.db.watchers")
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        async with asyncio.timeout(20):
            while not list(folder.iterdir()):
                await asyncio.sleep(0.01)
            await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"woken\n"
        os.kill(process.pid, signal.SIGKILL)
    assert list(folder.iterdir()), "the dead one's socket is still there"
    await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}})
    async with asyncio.timeout(5):
        while list(folder.iterdir()):
            await asyncio.sleep(0.01)
    assert [o["metadata"]["name"] for o in (await store.list(NODE)).items] == ["n1", "n2"]
