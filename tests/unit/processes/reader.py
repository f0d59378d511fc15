"""A process that reads the table of pets until the row `done`, and writes down what it has seen."""

from __future__ import annotations

from pathlib import Path

from tests.unit.processes.parts import PETS, Part


async def read(folder: str) -> None:
    """Write "rows most-legs" to FOLDER/read."""
    part = await Part(Path(folder), "reader").start()
    reader = part.tables.reader(PETS)
    await reader.until("done", lambda row: row is not None, 60)
    Path(folder, "read").write_text(f"{len(reader.rows)} {max(pet.legs for pet in reader.rows.values())}")
    await part.stop()
