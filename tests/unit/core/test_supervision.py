"""Supervision: restarts, disabling, and those that must never be given up."""

from __future__ import annotations

import asyncio

import pytest
from ciliate import supervision
from ciliate.supervision import SupervisedTask, Supervisor


async def reached(supervisor: Supervisor, state: str) -> SupervisedTask:
    async with asyncio.timeout(5):
        while supervisor.tasks[0].state != state:
            await asyncio.sleep(0.001)
    return supervisor.tasks[0]


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "BACKOFF_FIRST", 0.0001)
    monkeypatch.setattr(supervision, "BACKOFF_MOST", 0.001)


async def test_a_failing_task_is_started_anew_until_it_ends() -> None:
    supervisor, runs = Supervisor(), []

    async def stumble() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise OSError("not yet")

    supervisor.spawn("zoo", "feed", stumble)
    task = await reached(supervisor, "ended")
    assert len(runs) == 3
    assert task.last_error == "OSError: not yet"


async def test_a_task_that_only_fails_is_disabled_unless_its_plugin_is_essential() -> None:
    async def fail() -> None:
        raise OSError("never")

    supervisor = Supervisor()
    supervisor.spawn("zoo", "feed", fail)
    task = await reached(supervisor, "disabled")
    assert task.failures == supervision.TRIES

    essential = Supervisor()
    essential.essential.add("zoo")
    essential.spawn("zoo", "feed", fail)
    async with asyncio.timeout(5):
        while essential.tasks[0].failures <= 2 * supervision.TRIES:
            await asyncio.sleep(0.001)
    await essential.stop("zoo")
    assert not essential.tasks
