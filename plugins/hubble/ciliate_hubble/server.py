"""The gRPC server: on a Unix socket in plaintext, on TCP with the credentials that somebody provides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from ciliate.health import Health
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

HEALTH_NAME = "hubble.server.Observer"
"""The service name by which Hubble's programs ask after health, besides the empty one."""
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the address must fail, and not take half of the connections
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
GRACE = 0.5
"""Seconds that open calls get at the end."""

CredentialsProvider = Callable[[], grpc.ServerCredentials]
"""Gives a server's credentials at its start; their certificates may change afterwards without a new start."""


class ListenError(Exception):
    """An address can't be listened on; the message says which, why, and how to mend it."""


@dataclass(frozen=True)
class Servicer:
    """A service: its full name (for reflection), and what adds it to a server."""

    name: str
    add: Callable[[grpc.aio.Server], None]


class Server:
    """Serves the same services on both addresses.

    listen: [host]:port, empty for none. Without a provider of credentials TCP is served only if `plaintext`.
    """

    def __init__(
        self,
        servicers: Sequence[Servicer],
        socket: Path,
        listen: str,
        status: Health,
        *,
        credentials: CredentialsProvider | None = None,
        plaintext: bool = False,
    ) -> None:
        self._servicers = servicers
        self._socket = socket
        self._listen = listen
        self._status = status
        self._credentials = credentials
        self._plaintext = plaintext
        self.port = 0  # of TCP, once it is listened on

    async def run(self) -> None:
        """Serve until cancelled. Raises ListenError."""
        server = grpc.aio.server(options=OPTIONS)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        for servicer in self._servicers:
            servicer.add(server)
        names = (health.SERVICE_NAME, reflection.SERVICE_NAME, *(servicer.name for servicer in self._servicers))
        reflection.enable_server_reflection(names, server)
        self._bind(server)
        for name in ("", HEALTH_NAME):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            await server.start()
            self._socket.chmod(0o600)
            self._status.ready("server")
            await asyncio.Event().wait()
        finally:
            self._status.not_ready("the server has ended", "server")
            await server.stop(GRACE)

    def _bind(self, server: grpc.aio.Server) -> None:
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        if len(str(self._socket)) > 107:
            raise ListenError(f"hubble.socket_path: {self._socket} is longer than the 107 bytes that a socket may have")
        self._bind_one(f"unix://{self._socket}", "hubble.socket_path", server.add_insecure_port)
        if not self._listen:
            return
        address = f"[::]{self._listen}" if self._listen.startswith(":") else self._listen
        if self._credentials is not None and not self._plaintext:
            secure = self._credentials()
            add: Callable[[str], int] = lambda at: server.add_secure_port(at, secure)  # noqa: E731
        elif self._plaintext:
            add = server.add_insecure_port
        else:
            return
        self.port = self._bind_one(address, "hubble.listen_address", add)

    def _bind_one(self, address: str, setting: str, add: Callable[[str], int]) -> int:
        try:
            return add(address)
        except RuntimeError as error:
            text = f"{setting}: {address} can't be listened on ({error}); is another server there?"
            self._status.not_ready(text, "server")
            raise ListenError(text) from error
