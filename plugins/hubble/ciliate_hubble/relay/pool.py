"""The connections to all nodes."""

from __future__ import annotations

import asyncio

from structlog.stdlib import BoundLogger

from ciliate_hubble.api.relay_pb2 import NODE_CONNECTED, UNKNOWN_NODE_STATE
from ciliate_hubble.certificates.material import Keeper
from ciliate_hubble.relay.channels import Checks
from ciliate_hubble.relay.connection import Connection
from ciliate_hubble.relay.peers import Peer

AGAIN = 1.0


class Pool:
    """One connection a peer, as the peer service tells. Use `run` for its life."""

    def __init__(self, keeper: Keeper | None, checks: Checks, log: BoundLogger) -> None:
        self._keeper = keeper
        self._checks = checks
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self.version = 0  # grows with each change
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
        self._tasks[peer.name] = asyncio.create_task(self._keep(connection))
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

    async def changed(self, version: int) -> None:
        """Wait for a change of any connection after a version."""
        while self.version == version:
            await self._news.wait()

    def _end(self, name: str) -> None:
        self._tasks.pop(name).cancel()

    def _tell(self) -> None:
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()

    async def _keep(self, connection: Connection) -> None:
        while True:
            try:
                await connection.run()
            except Exception:
                self._log.exception("connection failed", peer=connection.peer.name)
            await asyncio.sleep(AGAIN)
