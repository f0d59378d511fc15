"""The ring's one consumer: order, discarded, foreign and lost records, waking, speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ciliate.drain import EventRing
from ciliate.kernel.errors import KernelError
from ciliate.maps.registry import MapRegistry
from ciliate.programs.object import ProgramSet

from tests.bpf.core.conftest import RECORDS

BURST = np.dtype([("first", "<u8"), ("count", "<u4"), ("lost", "<u4")])


class Source:
    """A program that writes records (of every ten the last is discarded), and the ring that they are in."""

    def __init__(self, registry: MapRegistry, programs: ProgramSet) -> None:
        self.programs = programs
        self.ring = EventRing(registry.open("records", writable=True), registry.open("runs"))

    def emit(self, first: int, count: int) -> int:
        """Write records; how many found the ring full."""
        run = self.programs.program("emit").test_run(ctx=np.array([(first, count, 0)], BURST).tobytes())
        return int(np.frombuffer(run.ctx, BURST)[0]["lost"])

    def emit_other(self) -> None:
        assert self.programs.program("emit_other").test_run(ctx=bytes(16)).retval == 0


@pytest.fixture
def source(registry: MapRegistry, core_object: Path) -> Iterator[Source]:
    registry.declare(RECORDS, "hubble")
    with ProgramSet.load(core_object, registry) as programs:
        yield Source(registry, programs)


def numbers(first: int, count: int) -> list[int]:
    return [first + i for i in range(count) if i % 10 != 9]


def test_records_come_in_order_without_the_discarded(source: Source) -> None:
    assert len(source.ring.read()) == 0
    source.emit(100, 25)
    records = source.ring.read()
    assert records.dtype == RECORDS.value
    assert records["number"].tolist() == numbers(100, 25)
    assert set(records["size"]) == {168}
    assert records["body"][:, 0].tolist() == numbers(0, 25)
    assert (len(source.ring.read()), source.ring.waiting()) == (0, 0)


def test_at_most_the_limit_is_read(source: Source) -> None:
    source.emit(0, 9)
    assert source.ring.read(4)["number"].tolist() == [0, 1, 2, 3]
    assert source.ring.read(4)["number"].tolist() == [4, 5, 6, 7]
    assert source.ring.read(4)["number"].tolist() == [8]


def test_records_of_another_size_are_stepped_over_and_counted(source: Source) -> None:
    source.emit(0, 5)
    source.emit_other()
    source.emit_other()
    source.emit(50, 5)
    source.emit_other()
    assert source.ring.read()["number"].tolist() == numbers(0, 5)
    assert source.ring.read()["number"].tolist() == numbers(50, 5)
    assert len(source.ring.read()) == 0
    assert (source.ring.foreign, source.ring.waiting()) == (3, 0)


def test_only_discarded_records_are_not_taken_for_the_end(source: Source) -> None:
    source.emit(0, 10)
    source.ring.read(9)
    source.emit(20, 3)
    assert source.ring.read(1)["number"].tolist() == [20]


def test_a_full_ring_loses_new_records_and_keeps_the_old(source: Source) -> None:
    lost = sum(source.emit(1000 * i, 1000) for i in range(30))
    assert lost > 0
    kept = []
    while len(batch := source.ring.read()):
        kept += batch["number"].tolist()
    assert kept == [n for i in range(30) for n in numbers(1000 * i, 1000)][: len(kept)]
    source.emit(7, 1)
    assert source.ring.read()["number"].tolist() == [7]


def test_the_ring_goes_round_many_times(source: Source) -> None:
    for i in range(100):
        source.emit(1000 * i, 997)
        assert source.ring.read()["number"].tolist() == numbers(1000 * i, 997)


async def test_an_event_loop_is_woken(source: Source) -> None:
    loop = asyncio.get_running_loop()
    got: asyncio.Queue[int] = asyncio.Queue()

    def on_ready() -> None:
        for number in source.ring.read(3)["number"].tolist():
            got.put_nowait(number)

    loop.add_reader(source.ring.fd, on_ready)
    try:
        for first in (0, 50):
            await loop.run_in_executor(None, source.emit, first, 9)
            assert [await asyncio.wait_for(got.get(), 5) for _ in range(9)] == numbers(first, 9)
    finally:
        loop.remove_reader(source.ring.fd)


def test_lost_records_are_counted_over_all_cpus(registry: MapRegistry, source: Source) -> None:
    registry.open("runs", writable=True).update(0, 4)
    assert source.ring.lost() == 4 * len(registry.open("runs").lookup(0))  # type: ignore[arg-type]


def test_only_a_writable_ring_can_be_drained(registry: MapRegistry, source: Source) -> None:
    with pytest.raises(KernelError, match="only the process that owns the ring drains it"):
        EventRing(MapRegistry(registry.root).open(RECORDS))
    with pytest.raises(TypeError, match="map declared is no ring buffer"):
        EventRing(registry.open("declared"))


def test_a_million_records_a_second_are_drained_on_one_cpu(source: Source) -> None:
    drained, spent = 0, 0
    while drained < 200_000:
        for i in range(20):
            source.emit(i, 1000)
        started = time.thread_time_ns()
        while len(batch := source.ring.read()):
            drained += len(batch)
            assert batch["number"].max() < 1020
        spent += time.thread_time_ns() - started
    rate = drained / spent * 1e9
    print(f"drained {rate:,.0f} records of {RECORDS.value.itemsize} bytes a second")
    assert rate > 1_000_000
