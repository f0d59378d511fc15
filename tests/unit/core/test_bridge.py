"""The API over standard input and output: as over the socket, refusals and streams included."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ciliate.api.client import Client, NotServedError
from ciliate.api.routes import ApiError

from tests.unit.core.test_api import serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")


class Pipes:
    """A bridge as a program, and a connection to it."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "ciliate.api.bridge", *words]
        self.program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def sendall(self, data: bytes) -> None:
        assert self.program.stdin is not None
        self.program.stdin.write(data)

    def recv(self, most: int) -> bytes:
        assert self.program.stdout is not None
        return self.program.stdout.read(most)

    def close(self) -> None:
        assert self.program.stdin is not None
        self.program.stdin.close()


def over_pipes(path: Path, *words: str) -> tuple[Client, Pipes]:
    pipes = Pipes(str(path), *words)
    return Client(path, connection=pipes), pipes


async def test_calls_refusals_and_streams_pass(tmp_path: Path) -> None:
    def use(path: Path) -> Any:
        client, pipes = over_pipes(path)
        with client, pipes.program:
            assert client.post("/echo/x", {"a": [1]}, {"q": "y"})["body"] == {"a": [1]}
            with pytest.raises(ApiError, match="the pot is full"):
                client.get("/fail")
            assert list(client.stream("/count", {"to": "4"})) == [0, 1, 2, 3]
            assert client.post("/echo/again", 1)["params"] == {"name": "again"}
        return pipes.program.returncode

    async with serving(tmp_path) as path:
        assert await asyncio.to_thread(use, path) == 0


async def test_a_process_that_does_not_run_is_said_and_may_come_later(tmp_path: Path) -> None:
    client, pipes = over_pipes(tmp_path / "agent.sock", "--any")

    def refused() -> None:
        with pytest.raises(ApiError, match="is the process running") as told:
            client.get("/count")
        assert told.value.status == NotServedError(tmp_path, "").status

    await asyncio.to_thread(refused)
    async with serving(tmp_path):
        assert (await asyncio.to_thread(client.post, "/echo/now"))["params"] == {"name": "now"}
    client.close()
    assert await asyncio.to_thread(pipes.program.wait, 10) == 0
    assert pipes.program.stdout is not None
    pipes.program.stdout.close()
