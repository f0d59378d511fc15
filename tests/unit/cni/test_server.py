"""The server against callers that are not our shim."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ciliate_cni import wire
from ciliate_cni.server import Answer, Caller, CniServer
from ciliate_cni.verbs import refuse_frame

REQUEST = wire.Request(b"STATUS", b"", b"", b"", b"", b"", 0, b"{}")


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[list[Caller]]:
    callers: list[Caller] = []

    async def handler(request: wire.Request, caller: Caller) -> Answer:
        callers.append(caller)
        return Answer(0, request.command)

    task = asyncio.create_task(CniServer(path, handler, refuse_frame).run())
    while not path.exists():
        await asyncio.sleep(0)
    yield callers
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def exchange(path: Path, frame: bytes, finish: bool = True) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(frame)
    if finish:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_call_is_answered(run_dir: Path) -> None:
    async with serving(run_dir / "s") as _:
        assert await exchange(run_dir / "s", wire.encode_request(REQUEST)) == wire.encode_answer(0, b"STATUS")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        wire.encode_request(REQUEST)[:-1],
        wire.encode_request(REQUEST) + b"x",
        wire.HEADER.pack(wire.MAGIC, 2**32 - 1),
        wire.HEADER.pack(wire.MAGIC, 4) + b"\xff\xff\xff\xff",
    ],
)
async def test_what_is_no_call_is_refused_with_code_6(run_dir: Path, frame: bytes) -> None:
    async with serving(run_dir / "s"):
        answer = await exchange(run_dir / "s", frame)
        assert answer[8] == 1
        assert json.loads(answer[9:])["code"] == 6


async def test_a_thousand_calls_at_once_are_all_answered(run_dir: Path) -> None:
    async with serving(run_dir / "s"):
        frame = wire.encode_request(REQUEST)
        answers = await asyncio.gather(*(exchange(run_dir / "s", frame) for _ in range(1000)))
        assert answers == [wire.encode_answer(0, b"STATUS")] * 1000


async def test_descriptors_do_not_leak_whatever_comes_with_them(run_dir: Path) -> None:
    async with serving(run_dir / "s"):
        await exchange(run_dir / "s", wire.encode_request(REQUEST))
        before = len(list(Path("/proc/self/fd").iterdir()))
        for frame in (wire.encode_request(REQUEST), b"nonsense", b"CNI\x01\xff\xff\xff\xff"):
            with socket.socket(socket.AF_UNIX) as client, Path("/proc/self/ns/net").open() as netns:
                client.connect(str(run_dir / "s"))
                client.setblocking(False)
                socket.send_fds(client, [frame], [netns.fileno(), netns.fileno()])
                client.shutdown(socket.SHUT_WR)
                while await asyncio.get_running_loop().sock_recv(client, 4096):
                    pass
        await exchange(run_dir / "s", wire.encode_request(REQUEST))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
async def test_the_socket_is_for_root_only(run_dir: Path) -> None:
    async with serving(run_dir / "s") as callers:
        assert (run_dir / "s").stat().st_mode & 0o777 == 0o600
        run_dir.chmod(0o755)
        (run_dir / "s").chmod(0o777)  # even where the mode lets others in, their credentials don't
        script = (
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(bytes.fromhex(sys.argv[2])); sys.exit(1 if s.recv(9) else 0)"
        )
        command = [sys.executable, "-c", script, str(run_dir / "s"), wire.encode_request(REQUEST).hex()]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert done.returncode == 0 or b"ConnectionResetError" in done.stderr or b"BrokenPipe" in done.stderr
        assert callers == []
