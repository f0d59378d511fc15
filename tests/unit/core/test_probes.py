"""The health port: liveness, readiness with reasons, and peers that speak something else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from ciliate.config import ConfigError
from ciliate.probes import ProbeServer


@asynccontextmanager
async def serving(unready: Mapping[str, list[str]]) -> AsyncIterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    task = asyncio.create_task(ProbeServer(f"127.0.0.1:{port}", lambda: unready).run())
    try:
        yield port
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask(port: int, raw: bytes) -> tuple[str, str]:
    async with asyncio.timeout(5):
        while True:
            with suppress(ConnectionRefusedError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            await asyncio.sleep(0.01)
        writer.write(raw)
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return head.partition("\r\n")[0], body


async def test_a_process_lives_even_while_it_is_not_ready_and_says_why() -> None:
    reasons: dict[str, list[str]] = {"cni": ["no range", "no kernel"]}
    async with serving(reasons) as port:
        assert await ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")
        status, body = await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert body == "cni: no range\ncni: no kernel\n"
        reasons.clear()
        assert await ask(port, b"GET /readyz?verbose HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "ready\n")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"GET /" + b"a" * 10_000, ""),
    ],
)
async def test_other_requests_are_refused_and_do_no_harm(raw: bytes, status: str) -> None:
    async with serving({}) as port:
        assert (await ask(port, raw))[0] == status
        assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("listen", ["9879", "host:", ":9879", "127.0.0.1:port"])
def test_a_wrong_address_is_refused_by_name(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"health\.listen"):
        ProbeServer(listen, dict)
