"""Routes: a client of a node finds the process that serves what it asks for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from ciliate import directory
from ciliate.api.client import NodeClient, NotServedError
from ciliate.api.routes import Request, Route

from tests.unit.processes.parts import Part

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")


async def serve(folder: Path, process: str, patterns: list[str]) -> Part:
    part = Part(folder, process)

    async def answer(_: Request) -> str:
        return process

    part.api.add([Route("GET", pattern, answer, "Who answers.") for pattern in patterns])
    await part.start()
    card = directory.Card(process=process, pid=os.getpid(), socket=str(part.api.path))
    card.routes = [("GET", pattern) for pattern in patterns]
    directory.publish(part.run_dir, card)
    return part


async def test_a_call_goes_to_the_process_that_serves_it(tmp_path: Path) -> None:
    agent = await serve(tmp_path, "agent", ["/status", "/endpoints/{id}"])
    hubble = await serve(tmp_path, "hubble", ["/status", "/flows"])

    def ask() -> list[Any]:
        with NodeClient(agent.api.path) as client:
            return [client.get(path) for path in ("/flows", "/endpoints/7", "/status", "/flows")]

    assert await asyncio.to_thread(ask) == ["hubble", "agent", "agent", "hubble"]
    await hubble.stop()

    def ask_the_dead() -> None:
        with NodeClient(agent.api.path) as client, pytest.raises(NotServedError, match=r"hubble\.sock"):
            client.get("/flows")

    await asyncio.to_thread(ask_the_dead)
    await agent.stop()
