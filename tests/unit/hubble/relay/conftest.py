"""A relay of the test's own, with nodes that the test chooses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from ciliate.config import load_settings
from ciliate.host import Host
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub
from ciliate_hubble.api.relay_pb2 import NodeState

from tests.unit.hubble.relay.nodes import Node, PeerServer
from tests.unit.processes.parts import reached


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A relay is a process of Ciliate, whose socket answers root only."""
    for item in items:
        if os.geteuid() != 0 and "relay" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="no root: the API socket answers root only"))


class Relay:
    """A relay as `ciliate relay` runs it, in this loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peers = PeerServer(str(folder / "peers.sock"))
        self.nodes: list[Node] = []
        self.settings = {
            "plugins": "[relay]",
            "node.name": "relay-node",
            "node.run_dir": folder / "run",
            "node.state_dir": folder / "state",
            "node.bpffs": folder / "bpf",
            "store.path": folder / "store.db",
            "relay.peer_service": f"unix://{self.peers.path}",
            "relay.listen_address": "''",
            "relay.health_listen_address": "''",
            "relay.disable_client_tls": True,
            "relay.health_check_interval": 0.2,
            "relay.health_check_timeout": 0.5,
        }
        self._host: Host | None = None

    async def start(self, *nodes: Node, **settings: object) -> Relay:
        """Start nodes, the peer service and the relay; returns when it has tried to connect to all."""
        await self.peers.start()
        await self.add(*nodes)
        return await self.start_relay(len(nodes), **settings)

    async def start_relay(self, nodes: int, **settings: object) -> Relay:
        """Start the relay alone, which will find a number of nodes."""
        self.settings.update({f"relay.{name}": value for name, value in settings.items()})
        flags = [f"{name}={value}" for name, value in self.settings.items()]
        self._host = Host.load(load_settings(None, flags, environment={}), "relay", "relay")
        await self._host.start()
        self.channel = grpc.aio.insecure_channel(f"unix://{self.folder / 'run' / 'hubble' / 'relay.sock'}")
        self.stub: Any = ObserverStub(self.channel)
        health = self._host.healths["relay"]
        await reached(lambda: health.conditions.get("relay.socket_path") == "", 10)
        async with asyncio.timeout(10):
            while len(self.pool.connections) < nodes or not self.pool.settled:
                await self.pool.changed(self.pool.version)
        return self

    @property
    def process(self) -> Any:
        """All of it."""
        assert self._host is not None
        return self._host.loaded.plugins["relay"]._process  # type: ignore[attr-defined]

    @property
    def pool(self) -> Any:
        """Its connections."""
        return self.process._pool

    @property
    def reasons(self) -> list[str]:
        """Why it is not ready."""
        assert self._host is not None
        return self._host.healths["relay"].reasons

    async def add(self, *nodes: Node) -> None:
        """Start nodes and tell of them."""
        for node in nodes:
            if not node.port:
                await node.start()
            self.nodes.append(node)
            self.peers.put(node)

    async def stop_relay(self) -> None:
        """End the relay alone."""
        if self._host is not None:
            await self.channel.close()
            await self._host.stop()

    async def stop(self) -> None:
        """End all."""
        await self.stop_relay()
        for node in self.nodes:
            await node.stop()
        await self.peers.stop()

    async def flows(self, **request: Any) -> list[api.GetFlowsResponse]:
        """All that a request gives, in order."""
        call = self.stub.GetFlows(api.GetFlowsRequest(**request), timeout=20)
        return [found async for found in call]

    async def until_state(self, node: Node, state: str, within: float = 20) -> None:
        """Wait until a node is connected, or is not."""
        await reached(
            lambda: (
                node.name in self.pool.connections and NodeState.Name(self.pool.connections[node.name].state) == state
            ),
            within,
        )


class Follower:
    """A reader that follows, and what it has read."""

    def __init__(self, relay: Relay, **request: Any) -> None:
        self.call = relay.stub.GetFlows(api.GetFlowsRequest(follow=True, **request))
        self.names: list[str] = []  # of flows
        self.states: list[tuple[str, list[str]]] = []
        self.errors: list[str] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for found in self.call:
            if found.HasField("node_status"):
                self.states.append((NodeState.Name(found.node_status.state_change), list(found.node_status.node_names)))
                if found.node_status.message:
                    self.errors.append(found.node_status.message)
            elif found.HasField("flow"):
                self.names.append(found.flow.uuid)

    async def told(self, state: str, node: Node, times: int = 1) -> None:
        """Wait until it has been told of a node."""
        await reached(lambda: sum(s == state and node.name in names for s, names in self.states) >= times, 20)

    async def has(self, *names: str) -> None:
        """Wait until it has all of these flows."""
        await reached(lambda: set(names) <= set(self.names), 20)

    async def leave(self) -> None:
        """Read no more."""
        self.call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


MakeFollower = Callable[..., Awaitable[Follower]]


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    """A relay that is not started yet."""
    made = Relay(tmp_path)
    yield made
    await made.stop()


@pytest.fixture
async def follow(relay: Relay) -> AsyncIterator[Callable[..., Follower]]:
    """Makes readers that follow."""
    made: list[Follower] = []

    def make(**request: Any) -> Follower:
        made.append(Follower(relay, **request))
        return made[-1]

    yield make
    for follower in made:
        await follower.leave()
