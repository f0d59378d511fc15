"""`number` over all nodes: each has applied it to its own flows, and the relay applies it to what they come to."""

from __future__ import annotations

from collections import deque

from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.relay.wire import is_flow

LAST_MOST = 16_384
"""The last flows that the relay keeps back to know which they are. Above it, each node's own limit is all there is."""


class Limit:
    """What of the merged messages a reader gets. Losses are not counted."""

    def __init__(self, request: GetFlowsRequest) -> None:
        number = 0 if request.follow else request.number
        from_start = request.first or request.HasField("since")
        self._left = number if from_start else 0
        self._last = number if not from_start and number <= LAST_MOST else 0
        self._kept: deque[bytes] = deque()
        self._flows = 0  # of those kept
        self.reached = False  # whether nothing more is wanted

    def pass_on(self, message: bytes) -> list[bytes]:
        """What goes to the reader now that a message has come."""
        if self._last:
            self._keep(message)
            return []
        if self.reached:
            return []
        if self._left and is_flow(message):
            self._left -= 1
            self.reached = not self._left
        return [message]

    def rest(self) -> list[bytes]:
        """What was kept back until the end."""
        kept = list(self._kept)
        self._kept.clear()
        return kept

    def _keep(self, message: bytes) -> None:
        self._kept.append(message)
        self._flows += is_flow(message)
        while self._flows > self._last:
            self._flows -= is_flow(self._kept.popleft())
