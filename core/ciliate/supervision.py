"""Tasks of plugins: restarted with back-off when they fail, disabled or kept at it, and shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

log = structlog.get_logger("supervision")

BACKOFF_FIRST = 0.1
BACKOFF_MOST = 30.0
HEALTHY_AFTER = 60.0
"""Seconds that a task must have run for its failures to be forgotten."""
TRIES = 8
"""Failures in a row after which a task of a plugin that is not essential is disabled."""


@dataclass
class SupervisedTask:
    """One task of one plugin, and how it fares."""

    plugin: str
    name: str
    factory: Callable[[], Coroutine[Any, Any, None]]
    failures: int = 0
    last_error: str = ""
    state: str = "running"  # running, waiting, disabled, ended
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Supervisor:
    """Keeps the tasks of all plugins of a process."""

    def __init__(self, on_change: Callable[[SupervisedTask], None] = lambda _: None) -> None:
        self.tasks: list[SupervisedTask] = []
        self.essential: set[str] = set()
        self._on_change = on_change

    def spawn(self, plugin: str, name: str, factory: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function until it ends; start it anew when it fails."""
        supervised = SupervisedTask(plugin, name, factory)
        self.tasks.append(supervised)
        supervised.task = asyncio.create_task(self._run(supervised), name=f"{plugin}.{name}")

    async def stop(self, plugin: str) -> None:
        """Cancel a plugin's tasks and wait for their end."""
        mine = [t for t in self.tasks if t.plugin == plugin and t.task is not None]
        for supervised in mine:
            supervised.task.cancel()  # type: ignore[union-attr]
        await asyncio.gather(*(t.task for t in mine if t.task is not None), return_exceptions=True)
        self.tasks = [t for t in self.tasks if t.plugin != plugin]

    async def _run(self, supervised: SupervisedTask) -> None:
        delay = BACKOFF_FIRST
        while True:
            started = time.monotonic()
            try:
                await supervised.factory()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if time.monotonic() - started > HEALTHY_AFTER:
                    supervised.failures, delay = 0, BACKOFF_FIRST
                self._note_failure(supervised, error, delay)
            else:
                supervised.state = "ended"
                self._on_change(supervised)
                return
            if supervised.state == "disabled":
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, BACKOFF_MOST)
            supervised.state = "running"
            self._on_change(supervised)

    def _note_failure(self, supervised: SupervisedTask, error: Exception, delay: float) -> None:
        supervised.failures += 1
        supervised.last_error = f"{type(error).__name__}: {error}"
        final = supervised.failures >= TRIES and supervised.plugin not in self.essential
        supervised.state = "disabled" if final else "waiting"
        log.error(
            "task failed",
            plugin=supervised.plugin,
            task=supervised.name,
            failures=supervised.failures,
            next="disabled" if final else f"again in {delay:.1f} s",
            exc_info=error,
        )
        self._on_change(supervised)
