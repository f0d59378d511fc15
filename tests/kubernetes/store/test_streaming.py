"""Lists as streams, from an API server whose etcd is new enough for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import WIDGET, StoreContract, widget
from tests.go.build import reason_not_to_build
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.programs import etcd, reason_not_to_run
from tests.kubernetes.store.conftest import OpenStore


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    """One with a newer etcd."""
    if reason := reason_not_to_run(nodes=False) or reason_not_to_build("etcd"):
        pytest.skip(reason)
    plane = ControlPlane(etcd=str(etcd()))
    try:
        plane.start()
        yield plane
    finally:
        plane.close()


class TestStreamingStore(StoreContract):
    """See `StoreContract`."""


async def test_a_list_is_a_stream_of_pages(store: KubernetesStore, open_store: OpenStore, space: str) -> None:
    await asyncio.gather(*(store.create(widget(f"w{n}", space)) for n in range(23)))
    small = open_store(page=5)
    pages = [page async for page in small.pages(WIDGET, space)]
    assert [len(page.items) for page in pages] == [5, 5, 5, 5, 3]
    assert [page.revision for page in pages[:-1]] == [""] * 4, "a page of a list that is not streamed has a revision"
    assert int(pages[-1].revision) > 0


async def test_objects_that_come_and_go_while_a_list_is_streamed_are_in_it_as_they_are_then(
    store: KubernetesStore, open_store: OpenStore, space: str
) -> None:
    small = open_store(page=10)
    await asyncio.gather(*(store.create(widget(f"w{n}", space)) for n in range(100)))

    async def change() -> None:
        for number in range(100):
            await store.delete(WIDGET, f"w{number}", space)
            await store.create(widget(f"x{number}", space))

    changing = asyncio.create_task(change())
    while not changing.done():
        listed = await small.list(WIDGET, space)
        names = {o["metadata"]["name"] for o in listed.items}
        assert 99 <= len(names) <= 101 and len(names) == len(listed.items)
    await changing
    assert {o["metadata"]["name"] for o in (await small.list(WIDGET, space)).items} == {f"x{n}" for n in range(100)}
