"""Whether somebody waits for the plugin: what can be put off is done while nobody does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Counts the calls that are under way, and knows when the last one ended."""

    def __init__(self) -> None:
        self._under_way = 0
        self._ended = time.monotonic()  # a start is taken for a call: it is followed by others more often than not
        self._again = asyncio.Event()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call is under way until this is left."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended = time.monotonic()
            self._again.set()

    async def quiet(self, seconds: float) -> None:
        """Wait until no call has been under way for so long."""
        while (left := self._left(seconds)) > 0:
            await asyncio.sleep(left)

    async def next_end(self) -> None:
        """Wait until a call has ended since this was last waited for."""
        await self._again.wait()
        self._again.clear()

    def _left(self, seconds: float) -> float:
        return seconds if self._under_way else self._ended + seconds - time.monotonic()
