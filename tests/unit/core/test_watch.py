"""A held loop is named: whose plugin, which function, for how long."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
from ciliate.watch import LoopWatch
from structlog.testing import capture_logs

from tests.unit.core.strangers import install

MODULE = """
import time
def dawdle(seconds):
    time.sleep(seconds)
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: sorted(range(50))
"""


async def test_who_holds_the_loop_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "slowpokes", MODULE, "")
    import slowpokes  # type: ignore[import-not-found]

    watch = LoopWatch(asyncio.get_running_loop(), {"slowpokes": "zoo"})
    with capture_logs() as logs:
        async with asyncio.timeout(20):
            while "zoo" not in watch.held:  # a look may come late on a busy machine
                await asyncio.sleep(0.001)
                slowpokes.spin(0.05)
        await asyncio.sleep(0.001)
        slowpokes.dawdle(0.4)
        await asyncio.sleep(0.001)
    watch.close()
    assert watch.held["zoo"].times >= 2
    assert 0.1 < watch.held["zoo"].longest < watch.longest + 0.1
    assert "dawdle" in watch.held["zoo"].where
    assert watch.longest >= 0.4
    assert watch.times >= 2
    assert any(entry["plugin"] == "zoo" and "slowpokes.py" in entry["where"] for entry in logs)


async def test_a_loop_that_waits_is_not_held(tmp_path: Path) -> None:
    watch = LoopWatch(asyncio.get_running_loop(), {})
    began = time.monotonic()
    await asyncio.sleep(0.3)
    watch.close()
    assert watch.busy < (time.monotonic() - began) / 2
    assert sys.modules["ciliate.watch"].HUNG not in watch.held
