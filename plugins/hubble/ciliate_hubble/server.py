"""gRPC servers: the same services on each of a process's addresses, with health and reflection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from ciliate.health import Health
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from ciliate_hubble.calls import Calls

HEALTH_NAME = "hubble.server.Observer"
"""The service name by which Hubble's programs ask after health, besides the empty one."""
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the address must fail, and not take half of the connections
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
GRACE = 0.5
"""Seconds that open calls get at the end."""
AGAIN = 1.0
"""Seconds until an address that can't be listened on is tried again."""
SOCKET_PATH_MOST = 107
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""The same messages as v1alpha, of which alone there is generated code."""

CredentialsProvider = Callable[[], Awaitable[grpc.ServerCredentials]]
"""Waits until there are credentials; their certificates may change afterwards without a new start."""


class ListenError(Exception):
    """An address can't be listened on; the message says which, why, and how to mend it."""


@dataclass(frozen=True)
class Servicer:
    """A service: its full name (for reflection), and what adds it to a server."""

    name: str
    add: Callable[[grpc.aio.Server], None]


@dataclass(frozen=True)
class Listener:
    """An address, the setting that it comes from, and the credentials to serve it with; without, it is plaintext."""

    address: str  # [host]:port, or the path of a Unix socket, for root
    setting: str  # hubble.listen_address
    credentials: CredentialsProvider | None = None

    @property
    def target(self) -> str:
        """As grpc wants it. Raises ListenError."""
        if not self.address.startswith("/"):
            return f"[::]{self.address}" if self.address.startswith(":") else self.address
        if len(self.address) > SOCKET_PATH_MOST:
            most = f"the {SOCKET_PATH_MOST} bytes that a socket's path may have"
            raise ListenError(f"{self.setting}: {self.address} is longer than {most}")
        return f"unix://{self.address}"


class Server:
    """Serves on all addresses; one that fails is tried again, and the others go on."""

    def __init__(self, servicers: Sequence[Servicer], listeners: Sequence[Listener], status: Health) -> None:
        self._servicers = servicers
        self._listeners = listeners
        self._status = status
        self._checks = health.aio.HealthServicer()
        self._serving = True
        self.ports: dict[str, int] = {}  # by setting, of the addresses that are listened on; a Unix socket's is 1
        for listener in listeners:
            status.not_ready("does not listen yet", listener.setting)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self.set_serving(self._serving)
        async with asyncio.TaskGroup() as group:
            for listener in self._listeners:
                group.create_task(self._keep(listener))

    async def set_serving(self, serving: bool) -> None:
        """What those hear who ask after the observer's health; the process itself lives, and says so."""
        self._serving = serving
        states = health_pb2.HealthCheckResponse
        await self._checks.set("", states.SERVING)
        await self._checks.set(HEALTH_NAME, states.SERVING if serving else states.NOT_SERVING)

    async def _keep(self, listener: Listener) -> None:
        while True:
            try:
                await self._serve(listener)
            except ListenError as error:
                self._status.not_ready(str(error), listener.setting)
            await asyncio.sleep(AGAIN)

    async def _serve(self, listener: Listener) -> None:
        credentials = await listener.credentials() if listener.credentials is not None else None
        calls = Calls()
        server = grpc.aio.server(options=OPTIONS, interceptors=[calls])
        health_pb2_grpc.add_HealthServicer_to_server(self._checks, server)
        for servicer in self._servicers:
            servicer.add(server)
        add_reflection(server, [health.SERVICE_NAME, *(servicer.name for servicer in self._servicers)])
        self.ports[listener.setting] = _bind(server, listener, credentials)
        try:
            await server.start()
            if listener.address.startswith("/"):
                os.chmod(listener.address, 0o600)  # noqa: PTH101 - a path of ours; it does not wait
            self._status.ready(listener.setting)
            await asyncio.Event().wait()  # to be cancelled; in server.wait_for_termination that would spoil server.stop
        finally:
            self._status.not_ready("does not listen any more", listener.setting)
            await server.stop(GRACE)
            await calls.end()


def add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Let clients ask which services and messages there are, in both versions of the protocol."""
    servicer: Any = reflection.aio.ReflectionServicer([*names, reflection.SERVICE_NAME, REFLECTION_V1])
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(REFLECTION_V1, methods),))


def _bind(server: grpc.aio.Server, listener: Listener, credentials: grpc.ServerCredentials | None) -> int:
    target = listener.target
    try:
        if listener.address.startswith("/"):
            Path(listener.address).parent.mkdir(parents=True, exist_ok=True)
        return server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target)
    except (RuntimeError, OSError) as error:
        text = f"{listener.setting}: {listener.address} can't be listened on ({error}); is another server there?"
        raise ListenError(text) from error
