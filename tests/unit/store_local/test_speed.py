"""Coarse limits: twice and more of what the slowest test machine shows, so that only a change of order fails."""

from __future__ import annotations

import asyncio
import statistics
import time

from ciliate.model.kinds import POD
from ciliate_store_local.driver import LocalStore

from tests.unit.store_local.conftest import pod


async def test_a_write_takes_under_2_ms_and_10000_objects_list_within_half_a_second(store: LocalStore) -> None:
    times = []
    for number in range(200):
        began = time.perf_counter()
        await store.create(pod(f"p{number}", nodeName=f"n{number % 10}", text="x" * 500))
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    await asyncio.gather(
        *(store.create(pod(f"p{n}", nodeName=f"n{n % 10}", text="x" * 500)) for n in range(200, 10_000))
    )
    together = time.perf_counter() - began
    began = time.perf_counter()
    listed = await store.list(POD)
    whole = time.perf_counter() - began
    print(
        f"write p50 {statistics.median(times) * 1e3:.2f} ms; 9,800 at once {together:.2f} s; list {whole * 1e3:.0f} ms"
    )
    assert len(listed.items) == 10_000
    assert statistics.median(times) < 0.002
    assert whole < 0.5
