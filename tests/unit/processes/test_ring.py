"""The ring in shared memory: cursors, losses, writers that come back, and readers in other processes under load."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ciliate.batches import Batches
from ciliate_node.peers.batches import SharedBatches
from ciliate_node.peers.ring import RingReader, RingWriter, ring_path
from numpy.typing import NDArray

RECORD = np.dtype([("number", "<u8"), ("copy", "<u8"), ("address", "u1", 16)])


def records(start: int, count: int) -> NDArray[np.void]:
    made = np.zeros(count, RECORD)
    made["number"] = made["copy"] = np.arange(start, start + count)
    made["address"] = (made["number"] & 0xFF)[:, None]
    return made


def test_each_reader_keeps_a_cursor_and_counts_what_it_lost(tmp_path: Path) -> None:
    writer = RingWriter(tmp_path / "ring", RECORD, 100)
    first = RingReader(tmp_path / "ring")
    writer.write(records(0, 70))
    second = RingReader(tmp_path / "ring")
    writer.write(records(70, 50))
    assert second.read(1000).records["number"].tolist() == list(range(70, 120))
    batch, lost = first.read(60)
    assert (batch["number"].tolist(), lost) == (list(range(20, 80)), 20)
    batch, lost = first.read(60)
    assert (batch["number"].tolist(), lost) == (list(range(80, 120)), 0)
    assert len(first.read(60).records) == 0
    writer.write(records(120, 250))
    batch, lost = second.read(1000)
    assert (batch["number"].tolist(), lost) == (list(range(270, 370)), 150)
    writer.note_lost(7)
    assert second.lost() == 7


def test_a_writers_next_life_goes_on_with_the_ring_and_another_shape_makes_a_new_one(tmp_path: Path) -> None:
    RingWriter(tmp_path / "ring", RECORD, 100).write(records(0, 10))
    reader = RingReader(tmp_path / "ring")
    RingWriter(tmp_path / "ring", RECORD, 100).write(records(10, 5))
    assert reader.read(100).records["number"].tolist() == list(range(10, 15))
    assert not reader.replaced()
    RingWriter(tmp_path / "ring", RECORD, 200)
    assert reader.replaced()


def test_what_is_no_ring_is_refused_by_readers_and_replaced_by_the_writer(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(b"?" * 10_000)
    with pytest.raises(ValueError, match="is no ring"):
        RingReader(tmp_path / "ring")
    RingWriter(tmp_path / "ring", RECORD, 100)
    assert len(RingReader(tmp_path / "ring").read(10).records) == 0


def write(path: str, total: int) -> None:
    """Write numbered records, as fast as it goes."""
    writer = RingWriter(Path(path), RECORD, 1000)
    for start in range(0, total, 50):
        writer.write(records(start, 50))


def test_a_reader_that_is_overtaken_never_sees_a_torn_record(tmp_path: Path) -> None:
    total = 200_000
    RingWriter(tmp_path / "ring", RECORD, 1000)
    reader = RingReader(tmp_path / "ring")
    script = "import sys;from tests.unit.processes.test_ring import write;write(sys.argv[1], int(sys.argv[2]))"
    writing = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "ring"), str(total)])
    seen = lost = 0
    last = -1
    while seen + lost < total and writing.poll() in (None, 0):
        batch, missed = reader.read(700)
        seen, lost = seen + len(batch), lost + missed
        if len(batch):
            assert (batch["number"] == batch["copy"]).all()
            assert ((batch["number"] & 0xFF)[:, None] == batch["address"]).all()
            assert (np.diff(batch["number"]) == 1).all()
            assert batch["number"][0] > last
            last = int(batch["number"][-1])
    assert writing.wait() == 0
    assert seen + lost == total
    assert last == total - 1


async def test_batches_read_the_ring_of_another_process(tmp_path: Path) -> None:
    batches = Batches(100)
    shared = SharedBatches(batches, tmp_path, 0)
    subscription = batches.subscribe()
    path = ring_path(tmp_path)
    writer = RingWriter(path, RECORD, 1000)
    try:
        got: list[int] = []
        async with asyncio.timeout(10):
            while not got:  # the reader finds the ring some time after it was made, and begins there
                writer.write(records(0, 10))
                await asyncio.sleep(0.05)
                delivery = subscription.take()
                got = [] if delivery is None else [n for b in delivery.events for n in b["number"].tolist()]
        assert got[:10] == list(range(10))
        subscription.close()
        async with asyncio.timeout(5):
            while shared.following:
                await asyncio.sleep(0.01)
    finally:
        path.unlink()
