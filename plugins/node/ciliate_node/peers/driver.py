"""What the host makes of the driver `sockets`."""

from __future__ import annotations

from ciliate.api.routes import Route
from ciliate.batches import Batches
from ciliate.context import NodePlace
from ciliate.events import Events
from ciliate.tables.hub import Tables

from ciliate_node.peers.batches import SharedBatches
from ciliate_node.peers.links import Links
from ciliate_node.peers.serving import follow_handler


class SocketPeers:
    """Links to the other processes, the route that serves them, and the ring."""

    def __init__(self, place: NodePlace, tables: Tables, events: Events, batches: Batches, shared: int) -> None:
        self._links = Links(place.run_dir, place.process, events)
        self._handler = follow_handler(tables, events)
        tables.absent, events.absent = self._links.want_table, self._links.want_topic
        self.batches = SharedBatches(batches, place.run_dir, shared)

    def routes(self) -> list[Route]:
        """The route that other processes follow."""
        return [Route("GET", "/follow", self._handler, "Tables and topics of this process, for the node's others.")]

    async def run(self) -> None:
        """Follow what is wanted, for ever."""
        await self._links.run()
