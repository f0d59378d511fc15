"""One GetFlows request: a stream from each node, merged by time, and what becomes of the nodes meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.api.relay_pb2 import NODE_CONNECTED, NODE_GONE, NODE_UNAVAILABLE, NodeState
from ciliate_hubble.relay.channels import reason_of
from ciliate_hubble.relay.config import RelayConfig
from ciliate_hubble.relay.connection import Connection
from ciliate_hubble.relay.limits import Limit
from ciliate_hubble.relay.pool import Pool
from ciliate_hubble.relay.statuses import ErrorGathering, node_status
from ciliate_hubble.relay.stream import Progress, Request
from ciliate_hubble.relay.window import Window
from ciliate_hubble.relay.wire import WireError

METHOD = "/observer.Observer/GetFlows"
LOOK = 2.0
"""Seconds after which a node whose stream failed, though it is connected, is asked again for a reader that follows."""
SILENT_MOST = 30.0
"""Seconds after which a node that sends nothing, though it answers otherwise, is left out of a request that ends."""
REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.OUT_OF_RANGE,
)
"""Codes by which a node says that the request itself is at fault: it is not asked again."""
Metadata = tuple[tuple[str, str | bytes], ...]
Write = Callable[[bytes], Awaitable[None]]


class RefusedError(Exception):
    """The request has no answer; code and message are the reader's."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class NodeStream:
    """What a request knows of one node."""

    source: int
    progress: Progress = field(default_factory=Progress)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    generation: int = 0  # of the connection that the last stream used
    again: float = 0.0  # when it may be asked again on that connection
    told: NodeState | None = None
    refusal: tuple[grpc.StatusCode, str] | None = None
    ended: bool = False  # it has said that there is no more


class FlowMerge:
    """Serves one reader. `run` returns when all is told, or goes on until it is cancelled."""

    def __init__(
        self, pool: Pool, request: GetFlowsRequest, metadata: Metadata, config: RelayConfig, relay: str, write: Write
    ) -> None:
        """relay: the name of the node that the relay runs on. metadata: passed on to the nodes."""
        self._pool = pool
        self._request = Request(request)
        self._metadata = metadata
        self._relay = relay
        self._write = write
        follows = self._request.follows
        span = config.sort_buffer_follow_timeout if follows else config.sort_buffer_drain_timeout
        self._window: Window[bytes] = Window(span, config.sort_buffer_len_max, patient=not follows)
        self._limit = Limit(request)
        self._errors = ErrorGathering(relay, config.error_aggregation_window)
        self._nodes: dict[str, NodeStream] = {}
        self._sources: list[NodeStream] = []
        self._statuses: list[bytes] = []
        self._wake = asyncio.Event()
        self.passed = 0  # messages of nodes

    @property
    def late(self) -> int:
        """Messages that came after younger ones had gone."""
        return self._window.late

    async def run(self) -> None:
        """Ask all nodes, and write what comes. Raises RefusedError."""
        watching = asyncio.create_task(self._watch_pool()) if self._request.follows else None
        try:
            self._look(first=True)
            await self._write_due()
            while not self._over():
                await self._wait()
                if self._request.follows:
                    self._look()
                await self._write_due()
            await self._finish()
        finally:
            tasks = [node.task for node in self._sources if node.task is not None]
            tasks += [watching] if watching is not None else []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self) -> bool:
        if self._limit.reached:
            return True
        if not self._window.finished or any(node.task is not None for node in self._sources):
            return False
        if not self._request.follows:
            return True
        if self._sources and all(node.refusal is not None for node in self._sources):
            return True
        return self._request.ends and bool(self._sources) and all(node.ended for node in self._sources)

    async def _finish(self) -> None:
        refusals = [node.refusal for node in self._sources if node.refusal is not None]
        if refusals and len(refusals) == len(self._sources) and not self.passed:
            raise RefusedError(*refusals[0])
        await self._write_due()
        for message in self._limit.rest():
            await self._write(self._request.shown(message))
        for status in self._errors.take():
            await self._write(status)

    async def _write_due(self) -> None:
        """Statuses first, then messages that need not wait, then errors that have waited long enough."""
        statuses, self._statuses = self._statuses, []
        for status in statuses:
            await self._write(status)
        while not self._limit.reached and (popped := self._window.pop(time.monotonic())) is not None:
            source, message = popped
            if self._window.has_room(source):
                self._sources[source].room.set()
            self.passed += 1
            for passed in self._limit.pass_on(message):
                await self._write(self._request.shown(passed))
        if (due := self._errors.due()) is not None and due <= time.monotonic():
            for status in self._errors.take():
                await self._write(status)

    async def _wait(self) -> None:
        """Until something comes, or something is due."""
        if self._statuses:
            return
        now = time.monotonic()
        again = [node.again for node in self._sources if self._request.follows and node.again > now]
        dues = [due for due in (self._window.due(), self._errors.due(), *again) if due is not None]
        try:
            async with asyncio.timeout(max(0.0, min(dues) - now) if dues else None):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _watch_pool(self) -> None:
        while True:
            version = self._pool.version
            self._wake.set()
            await self._pool.changed(version)

    def _look(self, first: bool = False) -> None:
        """Ask nodes that can be asked, and tell of those that have come and gone."""
        connected = [connection for connection in self._pool.connected if self._start(connection, first)]
        self._tell(NODE_CONNECTED, [connection.peer.name for connection in connected])
        lost = [c.peer.name for c in self._pool.unavailable if first or c.state == NODE_UNAVAILABLE]
        self._tell(NODE_UNAVAILABLE, lost)
        self._tell(NODE_GONE, [name for name in self._nodes if name not in self._pool.connections])

    def _start(self, connection: Connection, first: bool) -> bool:
        """Ask a node, unless it is being asked, or failed a moment ago; whether it is being asked now."""
        node = self._node(connection.peer.name)
        if node.task is not None:
            return True
        spent = node.refusal is not None or node.ended or time.monotonic() < node.again
        if spent and connection.generation == node.generation:
            return False
        payload = self._request.first() if first else self._request.later(node.progress)
        node.generation, node.refusal, node.ended, node.again = connection.generation, None, False, 0.0
        self._window.open(node.source, time.monotonic())
        node.task = asyncio.create_task(self._read(connection, node, payload))
        return True

    def _node(self, name: str) -> NodeStream:
        if name not in self._nodes:
            self._nodes[name] = NodeStream(len(self._sources))
            self._sources.append(self._nodes[name])
        return self._nodes[name]

    def _tell(self, state: NodeState, names: list[str]) -> None:
        """Of those whose state the reader does not know yet."""
        news = [name for name in names if self._node(name).told != state]
        for name in news:
            self._node(name).told = state
        if news:
            self._statuses.append(node_status(self._relay, state, news))

    async def _read(self, connection: Connection, node: NodeStream, payload: bytes) -> None:
        """One stream, to its end."""
        name = connection.peer.name
        try:
            await self._take_all(connection, node, payload)
            self._note_end(name, node)
        except grpc.aio.AioRpcError as error:
            self._note_error(name, node, error.code(), reason_of(error))
        except TimeoutError:
            text = f"DEADLINE_EXCEEDED: has sent nothing for {SILENT_MOST:g} s"
            self._note_error(name, node, grpc.StatusCode.DEADLINE_EXCEEDED, text)
        except WireError as error:
            self._note_error(name, node, grpc.StatusCode.INTERNAL, f"INTERNAL: no message of Hubble: {error}")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._note_error(name, node, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: the connection broke")
        finally:
            self._window.close(node.source)
            node.task = None
            self._wake.set()

    async def _take_all(self, connection: Connection, node: NodeStream, payload: bytes) -> None:
        assert connection.line is not None
        with connection.line.use() as channel:
            call: Any = channel.unary_stream(METHOD)
            stream = call(payload, metadata=self._metadata)
            try:
                while (message := await self._next(stream)) is not grpc.aio.EOF:
                    await self._take(node, message)
            finally:
                stream.cancel()  # also while it waits for room: the node must not hold it open for nobody

    async def _take(self, node: NodeStream, message: bytes) -> None:
        """Take in one message, and wait until there is room for another."""
        at = self._request.time_of(message)
        if not node.progress.note(at):
            return
        self._window.push(node.source, at, message, time.monotonic())
        self._wake.set()
        while not self._window.has_room(node.source):
            node.room.clear()
            await node.room.wait()

    async def _next(self, stream: Any) -> Any:
        """The next message, or EOF. Raises TimeoutError where there must be an end, and nothing comes for long."""
        if self._request.follows:
            return await stream.read()
        async with asyncio.timeout(SILENT_MOST):
            return await stream.read()

    def _note_end(self, name: str, node: NodeStream) -> None:
        """A stream that follows ends by itself only at its `until`, or because the server stops."""
        node.ended = not self._request.follows or self._request.ends
        if not node.ended:
            self._tell(NODE_UNAVAILABLE, [name])
            node.again = time.monotonic() + LOOK

    def _note_error(self, name: str, node: NodeStream, code: grpc.StatusCode, message: str) -> None:
        if code in REFUSALS:
            node.refusal = (code, message.removeprefix(f"{code.name}: "))
        node.again = time.monotonic() + LOOK
        if self._request.follows and code is grpc.StatusCode.UNAVAILABLE:
            self._tell(NODE_UNAVAILABLE, [name])
        else:
            self._errors.add(name, message, time.monotonic())
