"""Events from another process: in order, bounded, losses told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.unit.processes.parts import BARKS, Bark, Part, reached

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")


async def test_events_cross_in_order_and_losses_are_told(tmp_path: Path) -> None:
    agent, hubble = await Part(tmp_path, "agent", topics=["barks"]).start(), await Part(tmp_path, "hubble").start()
    subscription = hubble.events.subscribe(BARKS, 100_000)
    await reached(lambda: bool(agent.events.queues("barks")))
    for number in range(100):
        agent.events.emit(BARKS, Bark(number=number))
    got: list[int] = []
    async with asyncio.timeout(5):
        async for delivery in subscription:
            got += [event.number for event in delivery.events]
            assert delivery.lost == 0
            if len(got) == 100:
                break
    assert got == list(range(100))
    subscription = hubble.events.subscribe(BARKS, 100_000)
    for number in range(10_000):  # in one go: the queue between the processes holds 4096
        agent.events.emit(BARKS, Bark(number=number))
    seen = lost = 0
    async with asyncio.timeout(5):
        async for delivery in subscription:
            seen, lost = seen + len(delivery.events), lost + delivery.lost
            if seen + lost == 10_000:
                break
    assert lost == 10_000 - 4096
    await agent.stop()
    await hubble.stop()
