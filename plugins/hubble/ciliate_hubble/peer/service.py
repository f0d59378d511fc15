"""The gRPC side of the service."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from ciliate_hubble.api.peer_pb2 import ChangeNotification, NotifyRequest
from ciliate_hubble.api.peer_pb2_grpc import PeerServicer, add_PeerServicer_to_server
from ciliate_hubble.peer.nodes import Nodes
from ciliate_hubble.server import Servicer

MOST = 4096
"""Changes that may wait for one reader, beyond the nodes that there are at its start; then its stream is ended."""


class Reader:
    """What one stream has not been sent yet."""

    def __init__(self) -> None:
        self._waiting: deque[ChangeNotification] = deque()
        self._most = 0
        self._news = asyncio.Event()
        self.overflowed = False

    def tell(self, changes: list[ChangeNotification]) -> None:
        """See NodeListener. The first call is the replay: whatever its size, it fits."""
        self._most = self._most or len(changes) + MOST
        if len(self._waiting) + len(changes) > self._most:
            self.overflowed = True
            self._waiting.clear()
        if not self.overflowed:
            self._waiting.extend(changes)
        self._news.set()

    async def take(self) -> ChangeNotification | None:
        """The next change; None once some were lost."""
        while not self._waiting and not self.overflowed:
            self._news.clear()
            await self._news.wait()
        return None if self.overflowed else self._waiting.popleft()


class PeerService(PeerServicer):
    """Notify: all nodes, then every change."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def Notify(  # noqa: N802
        self, request: NotifyRequest, context: grpc.aio.ServicerContext[NotifyRequest, ChangeNotification]
    ) -> AsyncIterator[ChangeNotification]:
        """One reader's stream; it ends with an error when the reader falls too far behind, and connects anew."""
        reader = Reader()
        try:
            await self._nodes.listen(reader)
            while (change := await reader.take()) is not None:
                yield change
        finally:
            self._nodes.leave(reader)
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"over {MOST} changes of peers waited for this reader; connect anew"
        )


def peer_servicer(nodes: Nodes) -> Servicer:
    """The service, for a server."""
    return Servicer("peer.Peer", lambda server: add_PeerServicer_to_server(PeerService(nodes), server))
