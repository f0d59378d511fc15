"""The node's other processes, as this one's host sees them: a driver of the group `ciliate.peers`.

A process that hosts all plugins of its node needs none. Where plugins are spread over processes, the driver that
`node.peers` names brings here the tables, events and batches that are asked for and belong to others (the hooks
`absent` of Tables, Events and Batches tell it), and serves those of this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ciliate.api.routes import Route
from ciliate.batches import Batches
from ciliate.config import NodeSection
from ciliate.context import NodePlace
from ciliate.events import Events
from ciliate.loading import load_driver
from ciliate.tables.hub import Tables


class Peers(Protocol):
    """Made with (place, tables, events, batches, shared: records to keep for other processes)."""

    def routes(self) -> Sequence[Route]:
        """Routes by which other processes are served."""

    async def run(self) -> None:
        """Follow what is wanted, for ever; a supervised task."""


class Alone:
    """No other process."""

    def routes(self) -> Sequence[Route]:
        """None."""
        return ()

    async def run(self) -> None:
        """Nothing to follow."""


def open_peers(
    section: NodeSection, place: NodePlace, tables: Tables, events: Events, batches: Batches, shared: int
) -> Peers:
    """The driver that `node.peers` names; where it is not installed, this process is alone."""
    try:
        driver = load_driver("ciliate.peers", section.peers) if section.peers else None
    except LookupError:
        driver = None
    made: Peers = Alone() if driver is None else driver(place, tables, events, batches, shared)
    return made
