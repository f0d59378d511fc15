"""Waking watchers: one datagram to each process after a commit.

Each process that watches has a Unix datagram socket in the folder `<database>.watchers`. A datagram names the resources
that changed; that it is lost when the receiver's buffer is full does no harm, since the receiver has others to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

_ANY = b"*"
_MOST_BYTES = 4096


class Wakeups:
    """This process's socket (once somebody listens) and the folder of everybody's."""

    def __init__(self, database: Path) -> None:
        """Make the folder beside the database. Raises OSError."""
        folder = database.with_name(database.name + ".watchers")
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._receiver: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._bells: dict[str, set[asyncio.Event]] = {}

    def _path(self, name: str) -> str:
        # A socket's path has at most 107 bytes; through the folder's descriptor it is short wherever the folder is.
        return f"/proc/self/fd/{self._folder}/{name}"

    @contextlib.contextmanager
    def bell(self, resource: str) -> Iterator[asyncio.Event]:
        """An event that is set after each commit that touches a resource; `listen` must have been called."""
        bell = asyncio.Event()
        bells = self._bells.setdefault(resource, set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)

    def listen(self) -> None:
        """Receive datagrams in the running loop, if not so already. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._stop_listening()
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            receiver.bind(self._path(self._name))
        except OSError:
            receiver.close()
            raise
        self._receiver, self._loop = receiver, loop
        loop.add_reader(receiver, self._receive, receiver)

    def _receive(self, receiver: socket.socket) -> None:
        touched: set[bytes] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                touched.update(receiver.recv(_MOST_BYTES).split(b"\n"))
        for resource, bells in self._bells.items():
            if _ANY in touched or resource.encode() in touched:
                for bell in bells:
                    bell.set()

    def ring(self, resources: set[str]) -> None:
        """Wake the watchers of these resources in all processes; remove dead processes' sockets. From any thread."""
        message = "\n".join(sorted(resources)).encode()
        if len(message) > _MOST_BYTES:
            message = _ANY
        for name in os.listdir(self._folder):  # noqa: PTH208, a descriptor
            try:
                self._sender.sendto(message, self._path(name))
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
            except OSError:
                continue  # a full buffer: that reader is awake; anything else: it looks by itself after `poll` seconds

    def _stop_listening(self) -> None:
        if self._receiver is None or self._loop is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._receiver)
        self._receiver.close()
        self._receiver = self._loop = None
        self._bells.clear()
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)

    def close(self) -> None:
        """Stop listening and let go of the folder."""
        self._stop_listening()
        self._sender.close()
        os.close(self._folder)
