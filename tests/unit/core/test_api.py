"""The API socket: calls, streams, errors, garbage, and who may use it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ciliate.api.client import Client, NotServedError
from ciliate.api.routes import ApiError, Request, Route
from ciliate.api.server import ApiServer, SocketInUseError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")


async def echo(request: Request) -> Any:
    return {"params": request.params, "query": request.query, "body": request.body}


async def fail(_: Request) -> Any:
    raise ApiError(409, "the pot is full; empty it")


async def crash(_: Request) -> Any:
    raise ZeroDivisionError("oops")


async def count(request: Request) -> AsyncIterator[int]:
    for number in range(int(request.query.get("to", "3"))):
        yield number


ROUTES = [
    Route("POST", "/echo/{name}", echo, "Echo."),
    Route("GET", "/fail", fail, "Fail."),
    Route("GET", "/crash", crash, "Crash."),
    Route("GET", "/count", count, "Count."),
]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Path]:
    server = ApiServer(folder / "agent.sock")
    server.add(ROUTES)
    await server.start()
    try:
        yield server.path
    finally:
        await server.stop()


async def test_calls_and_streams_are_answered_over_one_connection(tmp_path: Path) -> None:
    def use(path: Path) -> None:
        with Client(path) as client:
            answer = client.post("/echo/rex", {"legs": 4}, {"loud": "yes"})
            assert answer == {"params": {"name": "rex"}, "query": {"loud": "yes"}, "body": {"legs": 4}}
            assert list(client.stream("/count", {"to": "5"})) == [0, 1, 2, 3, 4]
            assert client.post("/echo/tom")["body"] is None

    async with serving(tmp_path) as path:
        await asyncio.to_thread(use, path)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/fail", 409, "the pot is full; empty it"),
        ("/crash", 500, "ZeroDivisionError: oops"),
        ("/none", 404, "no route"),
    ],
)
async def test_errors_have_a_status_and_a_sentence(tmp_path: Path, path: str, status: int, message: str) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(ApiError, match=message) as caught:
            await asyncio.to_thread(lambda: Client(served).get(path))
        assert caught.value.status == status


@pytest.mark.parametrize(
    "garbage", [b"\x05\x00\x00\x00abc", b"\xff\xff\xff\xff", b"\x03\x00\x00\x00\xc1\xc1\xc1", b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_garbage_ends_only_its_own_connection(tmp_path: Path, garbage: bytes) -> None:
    def send(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5)
            raw.connect(str(path))
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
        assert Client(path).post("/echo/a")["params"] == {"name": "a"}

    async with serving(tmp_path) as path:
        await asyncio.to_thread(send, path)


async def test_a_dead_socket_is_replaced_and_a_living_one_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "agent.sock"))
    async with serving(tmp_path):
        other = ApiServer(tmp_path / "agent.sock")
        with pytest.raises(SocketInUseError, match="another process"):
            await other.start()


def test_a_client_says_which_socket_nobody_serves(tmp_path: Path) -> None:
    with pytest.raises(NotServedError, match=r"agent\.sock"):
        Client(tmp_path / "agent.sock")


async def test_a_reader_that_leaves_ends_its_stream(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def endless(_: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            ended.set()

    server = ApiServer(tmp_path / "agent.sock")
    server.add([Route("GET", "/endless", endless, "Endless.")])
    await server.start()

    def peek() -> None:
        client = Client(server.path)
        next(client.stream("/endless"))
        assert isinstance(client._socket, socket.socket)
        # A reset, so that the server's next write fails.
        client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    await asyncio.to_thread(peek)
    await asyncio.wait_for(ended.wait(), 5)
    await server.stop()
