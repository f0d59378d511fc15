"""Tables read from another process: the same API, stale rows meanwhile, and nothing pruned on an incomplete word."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec
from ciliate.tables.table import Table
from ciliate_node.peers.mirror import Mirror, TableDelta

from tests.unit.processes.parts import OWNERS, PETS, Owner, Part, Pet, reached

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")


async def test_a_reader_in_another_process_gets_a_snapshot_and_then_deltas(tmp_path: Path) -> None:
    agent, hubble = await Part(tmp_path, "agent", ["pets"]).start(), await Part(tmp_path, "hubble").start()
    writer, reader = agent.tables.writer(PETS, "zoo"), hubble.tables.reader(PETS)
    assert reader.stale
    writer.put(Pet(name="rex"))
    assert await reader.until("rex", lambda pet: pet is not None, 5) == Pet(name="rex")
    await reached(lambda: not reader.stale and not reader.complete)
    changes = reader.changes()
    assert (await anext(changes)).upserts == [Pet(name="rex")]
    writer.put(Pet(name="rex", legs=3))
    writer.complete()
    async with asyncio.timeout(5):
        change = await anext(changes)
    assert (change.upserts, change.complete, reader.epoch, reader.revision) == ([Pet(name="rex", legs=3)], True, 1, 2)
    writer.delete("rex")
    async with asyncio.timeout(5):
        assert (await anext(changes)).deletes == ["rex"]
    await changes.aclose()
    await agent.stop()
    await reached(lambda: reader.stale and not reader.complete)
    await hubble.stop()


async def test_the_rows_on_disk_are_shown_until_the_writer_comes(tmp_path: Path) -> None:
    first = await Part(tmp_path, "agent", ["pets"]).start()
    first.tables.writer(PETS, "zoo").put(Pet(name="rex"))
    await first.stop()
    hubble = await Part(tmp_path, "hubble").start()
    reader = hubble.tables.reader(PETS)
    assert (dict(reader.rows), reader.stale, reader.complete) == ({"rex": Pet(name="rex")}, True, False)
    second = await Part(tmp_path, "agent", ["pets"]).start()
    second.tables.writer(PETS, "zoo").complete()
    await reached(lambda: reader.complete and reader.epoch == 2)
    await second.stop()
    await hubble.stop()


async def test_a_plugin_that_moves_to_another_process_takes_its_rows_along(tmp_path: Path) -> None:
    for process, legs in (("agent", 4), ("pets", 3), ("agent", 2)):
        part = Part(tmp_path, process, ["pets"])
        writer = part.tables.writer(PETS, "zoo")
        assert len(writer.rows) == (0 if legs == 4 else 1)
        writer.put(Pet(name="rex", legs=legs))
        part.tables.close()
    last = Part(tmp_path, "agent", ["pets"])
    assert last.tables.writer(PETS, "zoo").rows["rex"].legs == 2
    last.tables.close()


async def test_a_table_larger_than_a_message_arrives_whole(tmp_path: Path) -> None:
    agent, hubble = await Part(tmp_path, "agent", ["pets"]).start(), await Part(tmp_path, "hubble").start()
    writer = agent.tables.writer(PETS, "zoo")
    with agent.tables.commit():
        for number in range(10_000):
            writer.put(Pet(name=f"pet-{number}"))
    writer.complete()
    reader = hubble.tables.reader(PETS)
    await reached(lambda: reader.complete)
    assert len(reader.rows) == 10_000
    await agent.stop()
    await hubble.stop()


def delta(rows: list[Row], *, complete: bool, snapshot: bool = False, epoch: int = 1) -> list[TableDelta]:
    raw = [msgspec.msgpack.encode(row) for row in rows]
    return [TableDelta("pets", epoch, 1, complete, snapshot=snapshot, rows=raw)]


def test_an_incomplete_snapshot_prunes_nothing_and_a_complete_one_does() -> None:
    table = Table(PETS)
    mirror = Mirror(table)
    mirror.apply(delta([Pet(name="rex"), Pet(name="tom")], complete=True, snapshot=True))
    mirror.lost()
    mirror.apply(delta([Pet(name="tom", legs=3)], complete=False, snapshot=True, epoch=2))
    assert (set(table.rows), table.complete, table.rows["tom"].legs) == ({"rex", "tom"}, False, 3)
    mirror.apply(delta([], complete=True, epoch=2))
    assert (set(table.rows), table.complete) == ({"tom"}, True)


class NewPet(Row, frozen=True):
    name: str
    legs: int = 4
    colour: str = "brown"


class OddPet(Row, frozen=True):
    name: str
    legs: str


def test_another_versions_rows_are_read_and_what_cant_be_read_prunes_nothing() -> None:
    old, new = Table(PETS), Table(TableSpec("pets", NewPet, ("name",), Durability.COMMIT, "Pets."))
    Mirror(old).apply(delta([NewPet(name="rex", colour="red")], complete=True, snapshot=True))
    Mirror(new).apply(delta([Pet(name="rex")], complete=True, snapshot=True))
    assert (old.rows["rex"], new.rows["rex"].colour) == (Pet(name="rex"), "brown")
    mirror = Mirror(old)
    mirror.apply(delta([OddPet(name="rex", legs="many")], complete=True, snapshot=True, epoch=2))
    assert (old.rows["rex"], old.complete) == (Pet(name="rex"), False)
    mirror.apply(delta([Pet(name="rex", legs=2)], complete=True, epoch=2))
    assert (old.rows["rex"].legs, old.complete) == (2, True)


def start_writer(folder: Path, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.unit.processes.writer", str(folder), str(seed)])


async def test_a_reader_converges_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    hubble = await Part(tmp_path, "hubble").start()
    pets, owners = hubble.tables.reader(PETS), hubble.tables.reader(OWNERS)
    chance = random.Random(7)
    torn: list[str] = []

    async def check() -> None:
        """Both tables change in one commit: what is seen of one must be seen of the other."""
        async for _ in owners.changes():
            legs = {name: pet.legs for name, pet in pets.rows.items() if name.startswith("pet-")}
            if legs != {owner.pet: owner.legs for owner in owners.rows.values()}:
                torn.append(f"{legs} {owners.rows}")

    checking = asyncio.create_task(check())
    for seed in range(6):
        writer = start_writer(tmp_path, seed)
        steps = chance.randrange(5, 60)
        await reached(lambda steps=steps: not pets.stale and pets.revision > steps, 30)  # type: ignore[misc]
        known = set(pets.rows)
        writer.kill()
        writer.wait()
        await reached(lambda: pets.stale)
        assert not pets.complete
        assert len(pets.rows) >= len(known) - 5  # nothing was cleared because its writer died
    (tmp_path / "finish").touch()
    last = start_writer(tmp_path, 99)
    await pets.until("done", lambda row: row is not None, 30)
    await reached(lambda: pets.complete and owners.complete)
    last.kill()
    last.wait()
    other = Part(tmp_path, "third")
    assert dict(other.tables.reader(PETS).rows) == dict(pets.rows)
    assert dict(other.tables.reader(OWNERS).rows) == dict(owners.rows)
    other.tables.close()
    checking.cancel()
    assert not torn, torn[0]
    await hubble.stop()


async def test_a_stopped_reader_holds_up_nobody_and_catches_up(tmp_path: Path) -> None:
    agent = await Part(tmp_path, "agent", ["pets"]).start()
    writer = agent.tables.writer(PETS, "zoo")
    script = "import asyncio,sys;from tests.unit.processes.reader import read;asyncio.run(read(sys.argv[1]))"
    reader = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    await reached(lambda: any(table.followers for table in agent.tables.written()))
    os.kill(reader.pid, signal.SIGSTOP)
    began = time.monotonic()
    for legs in range(20_000):
        writer.put(Pet(name=f"pet-{legs % 500}", legs=legs))
        if legs % 100 == 0:
            await asyncio.sleep(0)
    assert time.monotonic() - began < 20
    (table,) = agent.tables.written()
    assert all(len(follower.pending) <= 500 for follower in table.followers)
    os.kill(reader.pid, signal.SIGCONT)
    writer.put(Pet(name="done"))
    assert await asyncio.to_thread(reader.wait, 20) == 0
    assert (tmp_path / "read").read_text() == "501 19999"
    await agent.stop()


async def test_owners_keys_of_two_fields_are_deleted_across_processes(tmp_path: Path) -> None:
    agent, hubble = await Part(tmp_path, "agent", ["owners"]).start(), await Part(tmp_path, "hubble").start()
    writer, reader = agent.tables.writer(OWNERS, "zoo"), hubble.tables.reader(OWNERS)
    writer.put(Owner(name="ann", pet="rex"))
    await reader.until(("ann", "rex"), lambda row: row is not None, 5)
    writer.delete(("ann", "rex"))
    await reader.until(("ann", "rex"), lambda row: row is None, 5)
    await agent.stop()
    await hubble.stop()
