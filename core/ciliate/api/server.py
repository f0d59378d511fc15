"""The server of a process's API socket."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ciliate.api.routes import ApiError, Request, Route
from ciliate.api.wire import Answer, Call, FrameError, frame, read_frame

log = structlog.get_logger("api")
_CALL = msgspec.msgpack.Decoder(Call)
_PEER = struct.Struct("3i")


class SocketInUseError(Exception):
    """Another process serves this socket, or is about to."""


class ApiServer:
    """Serves routes at <path> to root; one connection carries any number of calls, one after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.routes: list[Route] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._lock = -1

    def claim(self) -> None:
        """Be the one process that this socket is for, until `stop` or the process's end. Raises SocketInUseError.

        The kernel gives the lock back when its holder dies, so of any number that start at once exactly one goes on.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise SocketInUseError(f"{self.path}: another process serves it; stop that one first") from error
        self._lock = lock

    def add(self, routes: Iterable[Route]) -> None:
        """Contribute routes; the first that matches answers."""
        self.routes.extend(routes)

    async def start(self) -> None:
        """Listen. A socket left by a dead process is replaced. Raises SocketInUseError if one lives."""
        if self._lock < 0:
            self.claim()
        if self.path.exists():
            if await _answers(self.path):
                raise SocketInUseError(f"{self.path}: another process serves it; stop that one first")
            self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        self.path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and end the connections."""
        if self._server is not None:
            self._server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            self.path.unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            if _PEER.unpack(raw)[1] != 0:
                await _send(writer, Answer(status=403, body="only root may use this socket"))
                return
            while (data := await read_frame(reader)) is not None:
                await self._answer(data, writer)
        except (FrameError, ConnectionError) as error:
            log.debug("connection ended", reason=str(error))
        except asyncio.CancelledError:
            pass  # the server is stopping
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            call = _CALL.decode(data)
            result = self._dispatch(call)
            if inspect.isasyncgen(result):
                await _stream(result, writer)
                return
            answer = Answer(body=_plain(await result))
        except msgspec.MsgspecError as error:
            answer = Answer(status=400, body=f"not a call: {error}")
        except ApiError as error:
            answer = Answer(status=error.status, body=str(error))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("route failed", path=call.path)
            answer = Answer(status=500, body=f"{type(error).__name__}: {error}")
        await _send(writer, answer)

    def _dispatch(self, call: Call) -> Any:
        for route in self.routes:
            params = route.match(call.method, call.path)
            if params is not None:
                return route.handler(Request(call.method, call.path, params, call.query, call.body))
        raise ApiError(404, f"no route {call.method} {call.path}; GET /routes lists them")


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=str)


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(frame(answer))
    await writer.drain()


async def _stream(results: AsyncIterator[Any], writer: asyncio.StreamWriter) -> None:
    """Send results as they come. A failure ends the stream with its status; a reader that left ends the generator."""
    ended = Answer()
    try:
        async for result in results:
            await _send(writer, Answer(body=_plain(result), more=True))
    except ApiError as error:
        ended = Answer(status=error.status, body=str(error))
    finally:
        await results.aclose()  # type: ignore[attr-defined]
    await _send(writer, ended)


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
