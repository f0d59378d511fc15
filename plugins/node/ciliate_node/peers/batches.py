"""Batches of events between processes: the drain writes them into the shared ring, the others read it when asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ciliate.batches import POLL_SECONDS, Batch, Batches
from ciliate.drain import EventRing

from ciliate_node.peers.ring import RingReader, RingWriter, ring_path

LOOK_SECONDS = 0.5
"""How often a reader looks whether there is a new ring, and the drain tells what the programs have lost."""
MOST = 8192
"""Records that are copied at once."""


class _Due:
    """True every LOOK_SECONDS, and at first."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + LOOK_SECONDS
        return True


class SharedBatches:
    """Connects one process's Batches to the node's ring."""

    def __init__(self, batches: Batches, run_dir: Path, shared: int) -> None:
        self._batches = batches
        self._run_dir = run_dir
        self._shared = shared
        self._reader: RingReader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = _Due()
        batches.absent, batches.lost_elsewhere = self._wanted, self._lost
        if shared:
            batches.share = self._share

    @property
    def following(self) -> bool:
        """Whether the ring is being read."""
        return self._timer is not None

    def _share(self, ring: EventRing) -> Callable[[Batch], Any]:
        writer, due = RingWriter(ring_path(self._run_dir), ring.dtype, self._shared), _Due()

        def write(batch: Batch) -> None:
            writer.write(batch)
            if due():
                writer.note_lost(ring.lost() or 0)

        return write

    def _lost(self) -> int | None:
        return None if self._reader is None else self._reader.lost()

    def _wanted(self) -> None:
        if self._timer is None:
            self._reader, self._due = None, _Due()  # from now on, not from where the last subscriber was
            self._follow()

    def _follow(self) -> None:
        """Read the ring as long as somebody subscribes."""
        self._timer = None
        if not self._batches.queues() or self._batches.draining:
            self._reader = None
            return
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._follow)
        if self._due() and (self._reader is None or self._reader.replaced()):
            with suppress(OSError, ValueError):  # there is none yet
                self._reader = RingReader(ring_path(self._run_dir))
        while self._reader is not None:
            batch, lost = self._reader.read(MOST)
            if lost:
                self._batches.lose(lost)
            if len(batch):
                self._batches.hand_out(batch)
            if len(batch) < MOST:
                return
