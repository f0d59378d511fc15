"""The seam to flows older than the ring's: whoever keeps them (on disk, say) implements `Older`. Nobody does yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from ciliate_hubble.columns import Flows
from ciliate_hubble.tables import FlowTables


class Segment(NamedTuple):
    """Some flows in the order in which they happened, and what they name: tables of their own."""

    flows: Flows
    tables: FlowTables


class Older(Protocol):
    """Asked by GetFlows with `since`, or with `first`, before the ring is read."""

    def read(self, since: int, before: int) -> AsyncIterator[Segment]:
        """Flows from a time on and before another (ns since the epoch), oldest first, some thousand at a time."""
