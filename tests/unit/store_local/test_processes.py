"""Several real processes on one file, and what is left of one that was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import aclosing
from pathlib import Path

import pytest
from ciliate.model.kinds import NODE, POD
from ciliate.store import UnavailableError
from ciliate_store_local.driver import LocalStore

from tests.unit.store_local.conftest import OpenStore, pod

SHARED = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "shared"}, "spec": {"count": 0}}


async def start_writer(path: Path, name: str, count: int) -> Process:
    root = Path(__file__).parents[3]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.unit.store_local.writer_process",
        str(path),
        name,
        str(count),
        stdout=PIPE,
        cwd=root,
    )


async def test_writers_in_many_processes_lose_nothing_and_a_watcher_sees_all(store: LocalStore, path: Path) -> None:
    await store.create(SHARED)
    since = (await store.list(POD)).revision
    writers = [await start_writer(path, f"w{n}", 40) for n in range(4)]
    seen: dict[str, int] = {}
    last = int(since)
    async with asyncio.timeout(60), aclosing(store.watch(POD, since)) as watch:  # type: ignore[type-var]
        async for event in watch:
            assert int(event.revision) > last, "out of order"
            last = int(event.revision)
            name, _, number = event.object["metadata"]["name"].partition("-")
            assert int(number) == seen.get(name, -1) + 1, "a gap"
            seen[name] = int(number)
            if all(seen.get(f"w{n}") == 39 for n in range(4)):
                break
        for writer in writers:
            await writer.communicate()
            assert writer.returncode == 0
    assert (await store.get(NODE, "shared"))["spec"]["count"] == 160


async def test_a_killed_writer_loses_nothing_that_was_acknowledged(store: LocalStore, path: Path) -> None:
    await store.create(SHARED)
    acknowledged: dict[str, int] = {}
    for life in range(5):
        writer = await start_writer(path, f"life{life}", 100_000)
        assert writer.stdout is not None
        async with asyncio.timeout(30):
            while (line := await writer.stdout.readline()) and int(line) < 20 + life:
                acknowledged[f"life{life}"] = int(line)
        os.kill(writer.pid, signal.SIGKILL)
        rest = await writer.stdout.read()
        await writer.wait()
        complete = [int(word) for word in rest.split(b"\n")[:-1] if word]
        acknowledged[f"life{life}"] = max([acknowledged[f"life{life}"] + 1, *complete])
    names = {o["metadata"]["name"] for o in (await store.list(POD)).items}
    for life_name, number in acknowledged.items():
        assert {f"{life_name}-{n}" for n in range(number + 1)} <= names
    assert (await store.get(NODE, "shared"))["spec"]["count"] >= sum(n + 1 for n in acknowledged.values())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    await store.create(pod("after"))


async def test_a_lock_that_is_held_too_long_is_an_error_that_names_the_holder(
    open_store: OpenStore, path: Path
) -> None:
    store = open_store(lock_timeout=0.1)
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()\n"
    )
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path), stdin=PIPE, stdout=PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    with pytest.raises(UnavailableError, match=rf"process {holder.pid} for over 0.1 s"):
        await store.create(pod("web"))
    assert (await store.list(POD)).items == [], "reading goes on"
    assert holder.stdin is not None
    holder.stdin.close()
    await holder.wait()
    await store.create(pod("web"))


async def test_a_cancelled_write_is_done_or_not_but_the_store_goes_on(store: LocalStore) -> None:
    tasks = [asyncio.create_task(store.create(pod(f"p{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(not isinstance(result, BaseException) for result in results[1::2])
    names = {o["metadata"]["name"] for o in (await store.list(POD)).items}
    assert {f"p{n}" for n in range(1, 50, 2)} <= names


async def test_a_second_store_in_one_process_leaves_the_first_its_locks(
    store: LocalStore, path: Path, open_store: OpenStore
) -> None:
    await store.create(SHARED)
    open_store()
    log = path.with_name(f"{path.name}-wal").stat().st_ino
    writer = await start_writer(path, "w", 1)  # were it the last user, it would remove the log when it ends
    await writer.communicate()
    assert writer.returncode == 0
    assert path.with_name(f"{path.name}-wal").stat().st_ino == log
    await store.create(pod("last"))
    assert [p["metadata"]["name"] for p in (await open_store().list(POD)).items] == ["last", "w-0"]
