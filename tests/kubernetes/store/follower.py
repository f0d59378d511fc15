"""A reader that follows a kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from ciliate.store import Kind, follow
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import WIDGET


class Follower:
    """Follows a kind in a namespace: what it knows of them, and how often it was told something."""

    def __init__(self, store: KubernetesStore, space: str, kind: Kind = WIDGET) -> None:
        self.known: dict[str, Any] = {}
        self.complete = False
        self._store, self._space, self._kind = store, space, kind
        self._changed = asyncio.Event()

    async def run(self) -> None:
        async with aclosing(follow(self._store, self._kind, self._space, retry=0.02)) as batches:  # type: ignore[type-var]
            async for changes in batches:
                for key in changes.deletes:
                    del self.known[key.name]
                self.known.update({obj["metadata"]["name"]: obj["spec"] for obj in changes.upserts})
                self.complete = self.complete or changes.complete
                self._changed.set()

    async def until(self, condition: Callable[[], object], limit: float = 20.0) -> None:
        """Wait until what is known fulfils a condition."""
        async with asyncio.timeout(limit):
            while not condition():
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()

    async def __aenter__(self) -> Follower:
        self._task = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
