"""All of `ciliate run hubble`, put together."""

from __future__ import annotations

from ciliate.context import Context

from ciliate_hubble import listening
from ciliate_hubble.peer.service import peer_servicer
from ciliate_hubble.server import Server, Servicer


class HubbleProcess:
    """Flows of one node: from the data path's records to those who ask."""

    def __init__(self, context: Context) -> None:
        self._context = context
        servicers: list[Servicer] = [peer_servicer(listening.nodes(context))]
        self._server = Server(servicers, listening.listeners(context), context.health)

    def start(self) -> None:
        """Start the tasks."""
        self._context.spawn("server", self._server.run)
