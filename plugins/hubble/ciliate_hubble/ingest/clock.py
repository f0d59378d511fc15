"""Wall time of records, whose time is CLOCK_MONOTONIC."""

from __future__ import annotations

import time

STEP = 1_000_000
"""Nanoseconds by which the wall clock must have been set for its new time to be taken."""
_READS = 3


class WallClock:
    """What is to be added. It is the same from call to call, so that time does not go back by what reading takes."""

    def __init__(self) -> None:
        self._offset, _ = _read()

    def offset(self) -> int:
        """Wall time less CLOCK_MONOTONIC, in nanoseconds; another than before only after the wall clock was set."""
        offset, doubt = min((_read() for _ in range(_READS)), key=lambda read: read[1])
        if abs(offset - self._offset) > STEP + doubt:
            self._offset = offset
        return self._offset


def _read() -> tuple[int, int]:
    """The offset, and by how much it may be wrong."""
    before = time.time_ns()
    monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    after = time.time_ns()
    return (before + after) // 2 - monotonic, after - before
