"""Flows a second over the last minute."""

from __future__ import annotations

from collections import deque

SPAN = 60


class Rate:
    """Counts by whole seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._counts: deque[list[int]] = deque()  # [second, count]

    def add(self, count: int, now: float) -> None:
        """Something happened."""
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1][1] += count
        else:
            self._counts.append([second, count])
        self._forget(second)

    def per_second(self, now: float) -> float:
        """The average over the last minute, or since the start if that is shorter ago."""
        self._forget(int(now))
        span = min(SPAN, max(now - self._started, 1.0))
        return sum(count for _, count in self._counts) / span

    def _forget(self, second: int) -> None:
        while self._counts and self._counts[0][0] <= second - SPAN:
            self._counts.popleft()
