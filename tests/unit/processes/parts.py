"""What a process has of tables, events and an API socket, without the rest of a host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ciliate import directory
from ciliate.api.routes import Route
from ciliate.api.server import ApiServer
from ciliate.events import Events, TopicSpec
from ciliate.model.base import Row
from ciliate.tables.file import TableFile
from ciliate.tables.hub import Tables
from ciliate.tables.spec import Durability, TableSpec
from ciliate_node.peers.links import Links
from ciliate_node.peers.serving import follow_handler


class Pet(Row, frozen=True):
    name: str
    legs: int = 4


class Owner(Row, frozen=True):
    name: str
    pet: str
    legs: int = 0  # of the pet: equal to the pet's in every commit


class Bark(Row, frozen=True):
    number: int


PETS = TableSpec("pets", Pet, key=("name",), durability=Durability.COMMIT, doc="Pets.")
OWNERS = TableSpec("owners", Owner, key=("name", "pet"), durability=Durability.COMMIT, doc="Who has which.")
BARKS = TopicSpec("barks", Bark, "Barks.")


class Part:
    """One process's half, in this loop; several may share a node's folders."""

    def __init__(self, folder: Path, name: str, tables: Iterable[str] = (), topics: Iterable[str] = ()) -> None:
        self.name, self.run_dir = name, folder / "run"
        self.events = Events()
        self.peers = Links(self.run_dir, name, self.events)
        self.tables = Tables(TableFile(folder / "tables" / f"{name}.sqlite"))
        self.tables.declared, self.tables.absent = frozenset(tables), self.peers.want_table
        self.events.declared, self.events.absent = frozenset(topics), self.peers.want_topic
        self.api = ApiServer(self.run_dir / f"{name}.sock")
        self.api.add([Route("GET", "/follow", follow_handler(self.tables, self.events), "Follow.")])
        self.tables.changed = self.publish

    async def start(self) -> Part:
        await self.api.start()
        self.publish()
        self._task = asyncio.create_task(self.peers.run())
        return self

    def publish(self) -> None:
        tables = [table.spec.name for table in self.tables.written()]
        card = directory.Card(process=self.name, pid=os.getpid(), socket=str(self.api.path), tables=tables)
        card.topics = sorted(self.events.declared)
        directory.publish(self.run_dir, card)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.api.stop()
        self.tables.close()


async def reached(condition: Callable[[], bool], within: float = 40.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)
