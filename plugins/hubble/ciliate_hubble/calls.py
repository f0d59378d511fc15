"""The calls that a gRPC server has under way, so that it can end them all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio


class Calls(grpc.aio.ServerInterceptor):
    """Knows the task of each call.

    `Server.stop` does not wait for a call whose connection is dead, and a task of grpc's that outlives its server may
    take the whole process down with it when the loop ends. So whoever stops a server ends its calls as well.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Note the task that runs the call."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await continuation(handler_call_details)

    async def end(self) -> None:
        """Cancel what is left, and wait for its end."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
