"""Long work in slices, so that it never holds the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

T = TypeVar("T")
SLICE_SECONDS = 0.005
"""How long a slice may be, if no step of it is longer."""


async def sliced(steps: Iterator[T]) -> AsyncIterator[T]:
    """The steps of a generator, with a look at everything else before, and every few milliseconds."""
    await asyncio.sleep(0)
    end = time.perf_counter() + SLICE_SECONDS
    for step in steps:
        yield step
        if time.perf_counter() >= end:
            await asyncio.sleep(0)
            end = time.perf_counter() + SLICE_SECONDS
