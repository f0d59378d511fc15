"""Who holds the loop: how long each of its turns takes, and, of those that are too long, in which plugin's function.

The loop's selector tells when a turn begins and ends. A thread looks at the turn that is under way and takes its stack
when it has gone on for longer than LIMIT; while nothing runs it looks seldom, since waking costs an idle node.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import structlog

log = structlog.get_logger("watch")
LIMIT = 0.01
"""Seconds that one turn of the loop may take."""
HUNG = 0.1
"""Seconds after which whoever holds it is named in the log, and again whenever that has become ten times as long."""
LOOK, IDLE = 0.02, 0.1
"""Seconds between two looks, and while nothing has run since the last."""


@dataclass
class Held:
    """How one plugin has held the loop, as far as it was seen."""

    times: int = 0
    longest: float = 0.0  # seconds
    where: str = ""  # of the longest: function, file and line


class LoopWatch:
    """Watches the loop that runs in the thread which makes it. packages: a plugin's name by its top-level package."""

    def __init__(self, loop: asyncio.AbstractEventLoop, packages: Mapping[str, str]) -> None:
        self.held: dict[str, Held] = {}
        self.busy = self.longest = 0.0
        self.times = 0
        self.since = time.monotonic()
        self._packages = packages
        self._thread = threading.get_ident()
        self._began = 0.0  # of the turn under way; 0: the loop waits
        self._turns = 0
        self._closed = threading.Event()
        self._selector: Any = getattr(loop, "_selector", None)  # uvloop has none: it isn't watched
        if self._selector is None:
            return
        self._select = self._selector.select
        self._selector.select = self._between_turns
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._selector is not None:
            self._selector.select = self._select

    def _between_turns(self, timeout: float | None = None) -> Any:
        if self._began:
            took = time.monotonic() - self._began
            self.busy += took
            self.times += took > LIMIT
            self.longest = max(self.longest, took)
        self._began = 0.0
        ready = self._select(timeout)
        self._turns += 1
        self._began = time.monotonic()
        return ready

    def _look(self) -> None:
        seen, tell, turns = 0.0, HUNG, -1
        while not self._closed.wait(LOOK if self._turns != turns or self._began else IDLE):
            turns, began = self._turns, self._began
            took = time.monotonic() - began if began else 0.0
            if took <= LIMIT or (frame := sys._current_frames().get(self._thread)) is None or began != self._began:
                continue
            plugin, where = self._culprit(frame)
            held = self.held.setdefault(plugin, Held())
            if began != seen:
                seen, tell = began, HUNG
                held.times += 1
            if took > held.longest:
                held.longest, held.where = took, where
            if took > tell:
                tell = took * 10
                log.warning("the loop is held", plugin=plugin, where=where, seconds=round(took, 3))

    def _culprit(self, frame: FrameType | None) -> tuple[str, str]:
        """The innermost function of a plugin that is being executed; of the core if there is none."""
        core = "?"
        while frame is not None:
            package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            where = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
            if package in self._packages:
                return self._packages[package], where
            if package == "ciliate" and core == "?":
                core = where
            frame = frame.f_back
        return "core", core
