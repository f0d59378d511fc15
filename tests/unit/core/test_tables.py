"""Tables: commits, readers, waiting, completeness and what survives."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ciliate.model.base import Row
from ciliate.tables.file import TableFile, TableFileError
from ciliate.tables.hub import FLUSH_INTERVAL, PluginTables, TableError, Tables
from ciliate.tables.spec import Durability, TableSpec


class Pet(Row, frozen=True):
    name: str
    legs: int = 4


class Owner(Row, frozen=True):
    name: str
    pet: str


PETS = TableSpec("pets", Pet, key=("name",), durability=Durability.COMMIT, doc="Pets.")
OWNERS = TableSpec("owners", Owner, key=("name", "pet"), durability=Durability.SECOND, doc="Who has which.")


def open_tables(folder: Path) -> Tables:
    return Tables(TableFile(folder / "agent.sqlite"))


async def test_a_reader_gets_a_snapshot_and_then_deltas(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    writer = tables.writer(PETS, "zoo")
    writer.put(Pet(name="rex"))
    changes = tables.reader(PETS).changes()
    first = await anext(changes)
    assert first.snapshot
    assert first.upserts == [Pet(name="rex")]
    assert not first.complete
    writer.put(Pet(name="tweety", legs=2))
    writer.put(Pet(name="tweety", legs=1))
    writer.delete("rex")
    writer.complete()
    second = await asyncio.wait_for(anext(changes), 1)
    assert second.upserts == [Pet(name="tweety", legs=1)]
    assert second.deletes == ["rex"]
    assert second.complete
    await changes.aclose()
    tables.close()


async def test_a_commit_over_two_tables_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    pets, owners = tables.writer(PETS, "zoo"), tables.writer(OWNERS, "zoo")
    with tables.commit():
        pets.put(Pet(name="rex"))
        owners.put(Owner(name="ann", pet="rex"))
        assert not pets.rows
    assert "rex" in pets.rows
    assert ("ann", "rex") in owners.rows
    with pytest.raises(RuntimeError), tables.commit():
        pets.put(Pet(name="tom"))
        raise RuntimeError
    assert "tom" not in pets.rows
    tables.close()


async def test_until_waits_for_a_row_and_gives_up_in_time(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    writer, reader = tables.writer(PETS, "zoo"), tables.reader(PETS)
    waiting = asyncio.create_task(reader.until("rex", lambda pet: pet is not None and pet.legs == 3, 1))
    await asyncio.sleep(0)
    writer.put(Pet(name="rex"))
    writer.put(Pet(name="rex", legs=3))
    assert await waiting == Pet(name="rex", legs=3)
    with pytest.raises(TimeoutError):
        await reader.until("tom", lambda pet: pet is not None, 0.01)
    tables.close()


def test_a_commit_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    tables.writer(PETS, "zoo").put(Pet(name="rex"))
    # No close, no flush: what a killed process leaves.
    rows = sqlite3.connect(tmp_path / "agent.sqlite").execute("SELECT count(*) FROM rows").fetchone()
    assert rows == (1,)
    again = open_tables(tmp_path)
    reader = again.reader(PETS)
    assert reader.get("rex") == Pet(name="rex")
    assert reader.stale
    writer = again.writer(PETS, "zoo")
    assert writer.rows["rex"] == Pet(name="rex")
    assert not reader.stale
    assert not reader.complete
    assert reader.epoch == 2
    tables.close()
    again.close()


async def test_other_tables_are_on_disk_within_a_second(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    tables.writer(OWNERS, "zoo").put(Owner(name="ann", pet="rex"))
    flusher = asyncio.create_task(tables.run())
    connection = sqlite3.connect(tmp_path / "agent.sqlite")
    async with asyncio.timeout(1):
        while connection.execute("SELECT count(*) FROM rows").fetchone() != (1,):
            await asyncio.sleep(FLUSH_INTERVAL / 10)
    flusher.cancel()
    connection.close()
    tables.close()


def test_a_corrupt_file_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "agent.sqlite").write_bytes(b"SQLite format 3\x00" + b"garbage" * 1000)
    file = TableFile(tmp_path / "agent.sqlite")
    assert file.set_aside is not None
    assert file.set_aside.exists()
    assert file.load(PETS) == (0, {})
    file.close()


@pytest.mark.parametrize("damage", ["header", "pages", "emptied", "gone"])
def test_a_damaged_file_is_made_anew_from_its_copy(tmp_path: Path, damage: str) -> None:
    tables = open_tables(tmp_path)
    pets = tables.writer(PETS, "zoo")
    for number in range(500):
        pets.put(Pet(name=f"pet {number}", legs=number))
    pets.delete("pet 7")
    epoch = tables.reader(PETS).epoch
    tables.close()
    path = tmp_path / "agent.sqlite"
    content = path.read_bytes()
    if damage == "header":
        path.write_bytes(b"garbage!" * 512 + content[4096:])
    elif damage == "pages":
        path.write_bytes(content[:4096] + b"garbage!" * ((len(content) - 4096) // 8))
    elif damage == "emptied":
        path.write_bytes(content[:2048])
    else:
        path.unlink()
    again = open_tables(tmp_path)
    rows = again.writer(PETS, "zoo").rows
    assert rows == {f"pet {n}": Pet(name=f"pet {n}", legs=n) for n in range(500) if n != 7}
    assert again.reader(PETS).epoch == epoch + 1
    again.close()


def test_a_damaged_copy_harms_nobody_and_is_made_anew(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    tables.writer(PETS, "zoo").put(Pet(name="rex"))
    tables.close()
    (tmp_path / "agent.sqlite.copy").write_bytes(b"garbage" * 1000)
    again = open_tables(tmp_path)
    assert set(again.reader(PETS).rows) == {"rex"}
    again.close()
    (tmp_path / "agent.sqlite").unlink()
    assert set(open_tables(tmp_path).reader(PETS).rows) == {"rex"}


def test_a_row_that_cannot_be_read_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    writer = tables.writer(PETS, "zoo")
    writer.put(Pet(name="rex"))
    writer.put(Pet(name="tom"))
    tables.close()
    connection = sqlite3.connect(tmp_path / "agent.sqlite")
    connection.execute("UPDATE rows SET row = x'ff' WHERE hex(row) LIKE '%746F6D%'")
    connection.commit()
    connection.close()
    again = open_tables(tmp_path)
    assert set(again.reader(PETS).rows) == {"rex"}
    again.close()


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    writer = tables.writer(PETS, "zoo")
    tables._file._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(TableFileError, match=r"agent\.sqlite"):
        writer.put(Pet(name="rex"))
    assert not writer.rows
    tables._file._connection.execute("PRAGMA query_only = OFF")
    writer.put(Pet(name="rex"))
    assert "rex" in writer.rows
    tables.close()


def test_only_one_plugin_writes_a_table_and_only_if_it_declares_it(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    PluginTables(tables, "zoo", frozenset({"pets"})).writer(PETS)
    with pytest.raises(TableError, match="plugin zoo does"):
        PluginTables(tables, "farm", frozenset({"pets"})).writer(PETS)
    with pytest.raises(TableError, match="doesn't declare"):
        PluginTables(tables, "farm", frozenset()).writer(OWNERS)
    tables.close()


def test_tables_of_a_disabled_plugin_go_unless_it_is_essential(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    tables.leaving = {"zoo"}
    tables.writer(PETS, "zoo").put(Pet(name="rex"))
    tables.writer(OWNERS, "farm").put(Owner(name="ann", pet="rex"))
    tables.close()
    again = open_tables(tmp_path)
    assert again.drop_left(["zoo", "farm"]) == []
    assert again.drop_left([]) == ["pets"]
    assert not again.reader(PETS).rows and again.reader(OWNERS).rows
    assert again.drop_left([]) == []
    again.close()
    path = tmp_path / "agent.sqlite"
    path.unlink()
    assert not open_tables(tmp_path).reader(PETS).rows, "nor does the copy have them"


def test_tables_of_a_plugin_that_has_become_essential_stay(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    tables.leaving = {"zoo"}
    tables.writer(PETS, "zoo").put(Pet(name="rex"))
    tables.close_writer("pets")
    tables.leaving = set()
    tables.writer(PETS, "zoo")
    assert tables.drop_left([]) == []
    tables.close()


async def test_many_rows_reach_the_disk_and_the_copy_in_slices(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    owners = tables.writer(OWNERS, "zoo")
    running = asyncio.create_task(tables.run())
    with tables.commit():
        owners.put_all(Owner(name=f"n{number}", pet="rex") for number in range(5000))
    copied = tmp_path / "agent.sqlite.copy"

    def rows(path: Path) -> int:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            return int(file.execute("SELECT count(*) FROM rows").fetchone()[0])

    async with asyncio.timeout(10):
        while rows(copied) < 5000:
            await asyncio.sleep(0.02)
    assert rows(tmp_path / "agent.sqlite") == 5000
    running.cancel()
    tables.close()


def test_an_equal_row_is_no_change(tmp_path: Path) -> None:
    tables = open_tables(tmp_path)
    writer = tables.writer(PETS, "zoo")
    writer.put(Pet(name="rex"))
    revision = tables.reader(PETS).revision
    writer.put(Pet(name="rex"))
    assert tables.reader(PETS).revision == revision
    tables.close()
