"""A process that writes two tables, always in one commit, until it is killed: `python -m ... FOLDER SECONDS-SEED`."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from tests.unit.processes.parts import OWNERS, PETS, Owner, Part, Pet


async def write(folder: Path, seed: int) -> None:
    """Change pets at random. The row `done` is written last if a file FOLDER/finish appears; then all is still."""
    part = await Part(folder, "writer", ["pets", "owners"]).start()
    pets, owners = part.tables.writer(PETS, "zoo"), part.tables.writer(OWNERS, "zoo")
    chance = random.Random(seed)
    for step in range(1_000_000):
        if step == 20:  # what the last life left is all still wanted
            pets.complete()
            owners.complete()
        name = f"pet-{chance.randrange(40)}"
        with part.tables.commit():
            if chance.random() < 0.3:
                pets.delete(name)
                owners.delete(("ann", name))
            else:
                legs = chance.randrange(1000)
                pets.put(Pet(name=name, legs=legs))
                owners.put(Owner(name="ann", pet=name, legs=legs))
        if (folder / "finish").exists():
            break
        await asyncio.sleep(0.0005)
    pets.complete()
    owners.complete()
    pets.put(Pet(name="done"))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
