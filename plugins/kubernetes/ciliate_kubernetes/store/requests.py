"""Requests, and the transport that carries them: loaded with the first one, for it takes memory that not all need."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ciliate.metrics import Metrics
from ciliate.store import UnavailableError

from ciliate_kubernetes.store.config import Options
from ciliate_kubernetes.store.errors import Asked

if TYPE_CHECKING:
    from ciliate_kubernetes.store.transport import Transport

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Request:
    """One request. target: path and query; asked: the same in RBAC's words."""

    method: str
    target: str
    asked: Asked
    body: bytes | None = None
    content_type: str = JSON


class Calls:
    """What is asked of the API server, in numbers that Cilium's dashboards know."""

    def __init__(self, metrics: Metrics) -> None:
        self._calls = metrics.counter(
            "cilium_k8s_client_api_calls_total", "Requests to the API server.", "host", "method", "return_code"
        )
        self._latency = metrics.histogram(
            "cilium_k8s_client_api_latency_time_seconds", "Until the API server's answer began.", "path", "method"
        )

    def answered(self, request: Request, host: str, code: int, seconds: float) -> None:
        """A request was answered; code 0: it was not."""
        self._calls.labels(host, request.method, str(code) if code else "<error>").inc()
        if code:
            self._latency.labels(request.asked.resource, request.method).observe(seconds)


class Requests:
    """All requests of one process."""

    def __init__(self, options: Options) -> None:
        self.calls: Calls | None = None
        self._options = options
        self._transport: Transport | None = None
        self._loading = asyncio.Lock()
        self._closed = False

    async def call(self, request: Request) -> bytes:
        """The body of an answer. Raises StoreError."""
        return await (await self._loaded()).call(request)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer, while they come. Raises StoreError."""
        async with (await self._loaded()).stream(request) as lines:
            yield lines

    async def _loaded(self) -> Transport:
        """The transport. It and what it needs (25 MB) are not imported by processes that never ask for anything."""
        if self._closed:
            raise UnavailableError("the store is closed in this process")
        if self._transport is None:
            async with self._loading:
                if self._transport is None:
                    module = await asyncio.to_thread(importlib.import_module, "ciliate_kubernetes.store.transport")
                    self._transport = module.Transport(self._options, self._answered)
        return self._transport

    def _answered(self, request: Request, host: str, code: int, seconds: float) -> None:
        if self.calls is not None:
            self.calls.answered(request, host, code, seconds)

    async def close(self) -> None:
        """Let go of all connections; what still runs fails."""
        self._closed = True
        if self._transport is not None:
            await self._transport.close()
