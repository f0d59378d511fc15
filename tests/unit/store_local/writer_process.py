"""A process that writes until it is killed: `writer_process.py PATH NAME COUNT`. Prints what is acknowledged."""

from __future__ import annotations

import asyncio
import sys

from ciliate.model.kinds import NODE
from ciliate.store import ConflictError
from ciliate_store_local.driver import LocalStore

from tests.unit.store_local.conftest import pod


async def main(path: str, name: str, count: int) -> None:
    """Make objects of its own, and count up one that all share."""
    store = LocalStore({"path": path, "lock_timeout": 30}, ())
    for number in range(count):
        await store.create(pod(f"{name}-{number}", text="x" * 500))
        while True:
            shared = await store.get(NODE, "shared")
            shared["spec"]["count"] += 1
            try:
                await store.update(shared)
                break
            except ConflictError:
                continue
        print(number, flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
