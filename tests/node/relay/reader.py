"""A reader of flows as a user's program is one: it follows, and comes back when the relay is gone."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
from ciliate_hubble.api.flow_pb2 import FlowFilter
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub
from ciliate_hubble.api.relay_pb2 import NodeState
from google.protobuf.timestamp_pb2 import Timestamp

from tests.node.labs import until

UDP = FlowFilter(protocol=["udp"])


class Reader:
    """Follows flows of UDP in a thread of its own."""

    def __init__(self, server: str, **request: Any) -> None:
        self._server = server
        self._request = GetFlowsRequest(follow=True, whitelist=[UDP], **request)
        self.ports: set[int] = set()  # destinations of flows, as traffic.Pair makes them
        self.uuids: list[str] = []
        self.times: list[int] = []
        self.states: list[tuple[str, str, float]] = []  # state, node, when
        self.breaks = 0  # of its own connection
        self._last = Timestamp()
        self._last.GetCurrentTime()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="reader")
        self._thread.start()
        until(lambda: any(state == "NODE_CONNECTED" for state, _, _ in self.states), 20, "a first node")

    def _run(self) -> None:
        while not self._ending:
            with grpc.insecure_channel(self._server, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub: Any = ObserverStub(channel)
                self._call = stub.GetFlows(self._request, wait_for_ready=True)
                try:
                    for found in self._call:
                        self._take(found)
                except grpc.RpcError:
                    self.breaks += not self._ending
            self._request.since.CopyFrom(self._last)

    def _take(self, found: Any) -> None:
        if found.HasField("node_status"):
            state = NodeState.Name(found.node_status.state_change)
            self.states += [(state, name, time.monotonic()) for name in found.node_status.node_names]
        elif found.HasField("flow") and found.flow.uuid not in self.uuids[-200:]:
            self._last.CopyFrom(found.time)
            self.uuids.append(found.flow.uuid)
            self.times.append(found.time.ToNanoseconds())
            self.ports.add(found.flow.l4.UDP.destination_port)

    def has(self, ports: set[int], timeout: float = 20) -> None:
        """Wait for flows to all these ports."""
        until(lambda: ports <= self.ports, timeout, f"flows to {sorted(ports)[:5]}…")

    def told(self, state: str, node: str, times: int = 1, timeout: float = 30) -> float:
        """Wait until it has been told of a node; when it was."""

        def found() -> list[float]:
            return [when for s, name, when in self.states if (s, name) == (state, node)]

        until(lambda: len(found()) >= times, timeout, f"{state} of {node}, {times} times")
        return found()[times - 1]

    def close(self) -> None:
        """Read no more."""
        self._ending = True
        self._call.cancel()
        self._thread.join()
