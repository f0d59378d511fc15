"""A node's observer, as tests ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub

from tests.node.labs import Lab, until


class Observer:
    """One node's, over its Unix socket."""

    def __init__(self, server: str) -> None:
        self._channel = grpc.insecure_channel(server, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = ObserverStub(self._channel)

    def flows(self, *wanted: pb.FlowFilter, number: int = 2**32, **request: Any) -> list[pb.Flow]:
        """What is kept of some flows."""
        answers = self.stub.GetFlows(api.GetFlowsRequest(whitelist=wanted, number=number, **request), timeout=10)
        return [answer.flow for answer in answers if answer.HasField("flow")]

    def agent_events(self) -> list[pb.AgentEvent]:
        """What is kept of them."""
        return [answer.agent_event for answer in self.stub.GetAgentEvents(api.GetAgentEventsRequest(), timeout=10)]

    @contextmanager
    def following(self, *wanted: pb.FlowFilter) -> Iterator[list[pb.Flow]]:
        """Some flows, from now on: the list grows while the block lasts."""
        found: list[pb.Flow] = []
        call: Any = self.stub.GetFlows(api.GetFlowsRequest(whitelist=wanted, follow=True))

        def read() -> None:
            with suppress(grpc.RpcError):  # cancelled in the end
                found.extend(answer.flow for answer in call if answer.HasField("flow"))

        call.initial_metadata()
        reading = threading.Thread(target=read, name="follower")
        reading.start()
        try:
            yield found
        finally:
            call.cancel()
            reading.join(10)

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()


@contextmanager
def observer(lab: Lab, node: int = 0) -> Iterator[Observer]:
    """The observer of one of a lab's nodes."""
    found = Observer(lab.status()["nodes"][node]["hubble"]["server"])
    try:
        yield found
    finally:
        found.close()


def one(observer: Observer, what: str, *wanted: pb.FlowFilter) -> pb.Flow:
    """The latest of some flows, as soon as there is one."""
    return until(lambda: observer.flows(*wanted, number=1), 10, what)[0]
