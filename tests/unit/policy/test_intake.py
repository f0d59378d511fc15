"""How objects come from the store to the node's policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_IDENTITY
from ciliate.store import Kind, Object, ObjectKey, ObjectList, Selection, follow, object_key
from ciliate_policy.agent import PolicyAgent
from ciliate_policy.intake import follow_objects
from ciliate_store_local.driver import LocalStore


class PagedStore(LocalStore):
    """Gives lists as an API server does, piece by piece."""

    async def pages(
        self, kind: Kind, namespace: str | None = None, fields: Selection | None = None, labels: Selection | None = None
    ) -> AsyncIterator[ObjectList]:
        listed = await self.list(kind, namespace, fields, labels)
        for start in range(0, len(listed.items), 2):
            yield ObjectList(listed.items[start : start + 2], listed.revision)


def identity(number: int) -> Object:
    return {
        "apiVersion": CILIUM_IDENTITY.api_version,
        "kind": CILIUM_IDENTITY.kind,
        "metadata": {"name": str(number)},
        "security-labels": {},
    }


async def test_only_the_last_batch_of_a_first_list_is_complete(tmp_path: Path) -> None:
    store = PagedStore({"path": str(tmp_path / "store.db")}, ())
    for number in range(300, 305):
        await store.create(identity(number))
    async with asyncio.timeout(10), aclosing(follow(store, CILIUM_IDENTITY)) as batches:  # type: ignore[type-var]
        sizes = [(len(batch.upserts), batch.complete) async for batch in _first(batches, 3)]
    assert sizes == [(2, False), (2, False), (1, True)]
    await store.close()


async def _first(batches: Any, count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(batches)


async def test_what_an_earlier_life_of_the_task_knew_is_kept_until_the_whole_list_lacks_it(tmp_path: Path) -> None:
    store = PagedStore({"path": str(tmp_path / "store.db")}, ())
    for number in range(300, 305):
        await store.create(identity(number))
    known = {ObjectKey("", str(number)) for number in (303, 304, 999)}
    seen: list[str] = []
    done = asyncio.Event()

    async def put(obj: Object) -> None:
        seen.append(f"+{object_key(obj).name}")

    def complete(_: str) -> None:
        done.set()

    task = asyncio.create_task(
        follow_objects(
            cast(Context, SimpleNamespace(store=store)),
            cast(PolicyAgent, SimpleNamespace(complete=complete)),
            CILIUM_IDENTITY,
            known,
            put,
            lambda key: seen.append(f"-{key.name}"),
        )
    )
    async with asyncio.timeout(10):
        await done.wait()
    task.cancel()
    assert seen == ["+300", "+301", "+302", "+303", "+304", "-999"]
    assert {key.name for key in known} == {"300", "301", "302", "303", "304"}
    await store.close()
