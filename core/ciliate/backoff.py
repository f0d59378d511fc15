"""Waiting longer after each failure, by random shares of it, so that not all of a cluster's nodes come at once."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Pauses in seconds: `first`, doubled each time up to `most`, and each between half and all of that."""

    def __init__(self, first: float, most: float) -> None:
        self._first = self._next = first
        self._most = most

    def reset(self) -> None:
        """All is well again."""
        self._next = self._first

    def pause(self) -> float:
        """The next pause."""
        pause, self._next = self._next, min(2 * self._next, self._most)
        return pause * random.uniform(0.5, 1.0)

    async def wait(self, at_least: float = 0.0) -> None:
        """Sleep for the next pause; for `at_least` (and a little) if somebody asked for that."""
        pause = self.pause()
        await asyncio.sleep(pause if pause >= at_least else at_least * random.uniform(1.0, 1.1))
