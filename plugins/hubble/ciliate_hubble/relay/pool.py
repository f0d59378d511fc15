"""The connections to all nodes."""

from __future__ import annotations

import asyncio

from structlog.stdlib import BoundLogger

from ciliate_hubble.api.relay_pb2 import NODE_CONNECTED, UNKNOWN_NODE_STATE
from ciliate_hubble.certificates.material import Keeper
from ciliate_hubble.relay.channels import Checks
from ciliate_hubble.relay.connection import Connection
from ciliate_hubble.relay.peers import Peer


class Pool:
    """One connection a peer, as the peer service tells. Use `run` for its life."""

    def __init__(self, keeper: Keeper | None, checks: Checks, log: BoundLogger) -> None:
        self._keeper = keeper
        self._checks = checks
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self.connections: dict[str, Connection] = {}

    async def run(self) -> None:
        """Hold the connections until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            for name in list(self.connections):
                self.drop(name)

    def put(self, peer: Peer) -> None:
        """See PeerSet."""
        if peer.name in self.connections:
            self._end(peer.name)
        connection = Connection(peer, self._keeper, self._checks, self._tell, self._log)
        self.connections[peer.name] = connection
        task = asyncio.create_task(connection.run(), name=f"connection to {peer.name}")
        task.add_done_callback(self._ended)
        self._tasks[peer.name] = task
        self._tell()

    def drop(self, name: str) -> None:
        """See PeerSet."""
        if name in self.connections:
            self._end(name)
            del self.connections[name]
            self._tell()

    @property
    def connected(self) -> list[Connection]:
        """Connections that work, by name."""
        return [found for _, found in sorted(self.connections.items()) if found.state == NODE_CONNECTED]

    @property
    def unavailable(self) -> list[Connection]:
        """The others, by name."""
        return [found for _, found in sorted(self.connections.items()) if found.state != NODE_CONNECTED]

    @property
    def settled(self) -> bool:
        """Whether each connection has been tried."""
        return all(found.state != UNKNOWN_NODE_STATE for found in self.connections.values())

    async def changed(self, timeout: float) -> None:
        """Wait for a change of any connection, or for some seconds."""
        news = self._news
        try:
            async with asyncio.timeout(timeout):
                await news.wait()
        except TimeoutError:
            return

    def _end(self, name: str) -> None:
        self._tasks.pop(name).cancel()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("connection failed", task=task.get_name(), exc_info=error)
