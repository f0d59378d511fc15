"""Wall time of records does not go back."""

from __future__ import annotations

import time

import pytest
from ciliate_hubble.ingest.clock import STEP, WallClock


def test_records_of_one_moment_have_one_time_however_often_the_clocks_are_read() -> None:
    clock = WallClock()
    assert len({clock.offset() for _ in range(1000)}) == 1


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_wall_clock_that_is_set_is_followed(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = WallClock(), time.time_ns
    before = clock.offset()
    monkeypatch.setattr(time, "time_ns", lambda: real() + seconds * 10**9)
    assert abs(clock.offset() - before - seconds * 10**9) < STEP


def test_the_offset_is_that_of_the_two_clocks() -> None:
    offset = WallClock().offset()
    assert abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC) + offset - time.time_ns()) < 50 * STEP
