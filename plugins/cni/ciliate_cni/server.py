"""The CNI server: a Unix socket on which the shim delivers one call a connection. For root only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from ciliate_cni import wire

log = structlog.get_logger("cni.server")
BACKLOG = 4096
RECEIVE_TIMEOUT = 10.0
"""Seconds that a shim has to deliver its call."""
_PEER = struct.Struct("3i")  # pid, uid, gid


class Caller:
    """The shim at the other end: the namespace that it opened, and whether it is still there."""

    def __init__(self, connection: socket.socket, netns: int | None) -> None:
        self._connection = connection
        self.netns = netns

    @property
    def gone(self) -> bool:
        """Whether it has hung up: its runtime has been told that the call failed."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


@dataclass(frozen=True)
class Answer:
    """What the shim prints, and its exit status."""

    status: int
    text: bytes


Handler = Callable[[wire.Request, Caller], Awaitable[Answer]]
Refusal = Callable[[wire.WireError], Answer]


class CniServer:
    """Accepts calls and hands them to `handler`; bytes that are no call are answered by `refuse`."""

    def __init__(self, path: Path, handler: Handler, refuse: Refusal) -> None:
        self.path = path
        self._handler = handler
        self._refuse = refuse
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until cancelled; calls under way are cancelled too."""
        with self._listen() as listener:
            loop = asyncio.get_running_loop()
            try:
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    call = asyncio.create_task(self._serve(connection))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
            finally:
                for call in self._calls:
                    call.cancel()
                await asyncio.gather(*self._calls, return_exceptions=True)

    def _listen(self) -> socket.socket:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self.path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
        return listener

    async def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.ExitStack() as files:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if uid != 0:
                log.warning("a call that is not root's is refused", pid=pid, uid=uid)
                return
            try:
                async with asyncio.timeout(RECEIVE_TIMEOUT):
                    body, netns = await _receive(connection)
                if netns is not None:
                    files.callback(os.close, netns)
                answer = await self._handler(wire.decode_body(body), Caller(connection, netns))
            except wire.WireError as error:
                answer = self._refuse(error)
            except TimeoutError:
                log.warning("a shim did not deliver its call", pid=pid, seconds=RECEIVE_TIMEOUT)
                return
            with contextlib.suppress(OSError):  # a shim that has gone: its caller has noticed
                await loop.sock_sendall(connection, wire.encode_answer(answer.status, answer.text))


async def _receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """A frame's body and the file descriptor that came with it. Raises WireError; then no descriptor is left open."""
    netns: int | None = None
    frame = bytearray()
    needed = wire.HEADER.size
    length = -1
    try:
        while len(frame) < needed:
            part, descriptors = await _part(connection)
            for descriptor in descriptors:
                if netns is None:
                    netns = descriptor
                else:
                    os.close(descriptor)
            if not part:
                raise wire.WireError(f"the frame ends after {len(frame)} bytes")
            frame += part
            if length < 0 and len(frame) >= wire.HEADER.size:
                length = wire.body_length(bytes(frame[: wire.HEADER.size]))
                needed = wire.HEADER.size + length
        if len(frame) > needed:
            raise wire.WireError(f"{len(frame) - needed} bytes follow the frame")
    except BaseException:
        if netns is not None:
            os.close(netns)
        raise
    return bytes(frame[wire.HEADER.size :]), netns


async def _part(connection: socket.socket) -> tuple[bytes, list[int]]:
    """What has come, and descriptors beside it; waits if nothing has. (The loop's sock_recv can't take descriptors.)"""
    while True:
        try:
            part, descriptors, _, _ = socket.recv_fds(connection, 65536, 4, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await _readable(connection)
        except ConnectionError:
            return b"", []
        else:
            return part, descriptors


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
