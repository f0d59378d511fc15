"""What a reader of flows is told of the nodes, in-band, and errors gathered until they are told."""

from __future__ import annotations

import time
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from ciliate_hubble.api.observer_pb2 import GetFlowsResponse
from ciliate_hubble.api.relay_pb2 import NODE_ERROR, NodeState, NodeStatusEvent


def node_status(relay: str, state: NodeState, nodes: Iterable[str], message: str = "") -> bytes:
    """A response that carries a status. relay: the node that the relay runs on."""
    event = NodeStatusEvent(state_change=state, node_names=sorted(nodes), message=message)
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return GetFlowsResponse(node_status=event, node_name=relay, time=now).SerializeToString()


class ErrorGathering:
    """Errors of nodes: equal ones within a time become one status."""

    def __init__(self, relay: str, window: float) -> None:
        self._relay = relay
        self._window = window
        self._nodes: dict[str, set[str]] = {}  # by message
        self._since = 0.0

    def add(self, node: str, message: str, now: float) -> None:
        """A node has failed."""
        if not self._nodes:
            self._since = now
        self._nodes.setdefault(message, set()).add(node)

    def due(self) -> float | None:
        """When there is something to tell; None if there is nothing."""
        return self._since + self._window if self._nodes else None

    def take(self) -> list[bytes]:
        """All of it, as responses."""
        told = [node_status(self._relay, NODE_ERROR, nodes, message) for message, nodes in self._nodes.items()]
        self._nodes.clear()
        return told
