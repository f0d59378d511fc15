"""How long the turns of a loop take, in processor time: a busy machine makes them no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Turns:
    """Seconds of each turn of the running loop."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @property
    def longest(self) -> float:
        """Of all."""
        return max(self.seconds, default=0.0)

    def quantile(self, share: float) -> float:
        """The seconds that a share of the turns is within."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


@contextmanager
def measured() -> Iterator[Turns]:
    """Measure the running loop's turns."""
    turns = Turns()
    selector: Any = getattr(asyncio.get_running_loop(), "_selector")  # noqa: B009, private, as the core's own watch
    select, began = selector.select, time.thread_time()

    def between(timeout: float | None = None) -> Any:
        nonlocal began
        turns.seconds.append(time.thread_time() - began)
        ready = select(timeout)
        began = time.thread_time()
        return ready

    selector.select = between
    try:
        yield turns
    finally:
        selector.select = select
