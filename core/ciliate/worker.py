"""The one thread for kernel calls that wait for rtnl or RCU; more threads gain nothing, rtnl is one lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions one after another, off the loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self.waiting = 0

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in the worker thread and wait for its result."""
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Finish what is under way and end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
