"""A server before the API server that passes requests on, and does to some of them what networks and servers do."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.kubernetes.daemons import free_port

_OF_A_HOP = ("host", "authorization", "connection", "transfer-encoding", "content-length")


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str

    @property
    def is_watch(self) -> bool:
        """Whether it asks for a stream of changes (or a streamed list)."""
        return self.query.get("watch") == "1"


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """What is done instead of passing a request on, or to the answer. Used up after `times`."""

    answer: Answer | None = None
    cut_after: int | None = None  # bytes of the answer's body, then the connection is gone
    silent: bool = False  # the answer's headers come, and nothing after them
    times: int = 1


@dataclass
class Proxy:
    """Listens where `url` says, while it is started."""

    kubeconfig: dict[str, Any]
    port: int = field(default_factory=free_port)
    seen: list[Seen] = field(default_factory=list)
    faults: list[tuple[Callable[[Seen], bool], Fault]] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    _client: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def watches(self) -> list[Seen]:
        """The watches that came."""
        return [seen for seen in self.seen if seen.is_watch]

    def lists(self) -> list[Seen]:
        """The pages of lists that were asked for."""
        return [seen for seen in self.seen if "limit" in seen.query]

    def inject(self, when: Callable[[Seen], bool], fault: Fault) -> None:
        """Have the next requests of a sort go wrong."""
        self.faults.append((when, fault))

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        cluster, user = self.kubeconfig["cluster"], self.kubeconfig["user"]
        context = ssl.create_default_context(cadata=cluster["ca"])
        context.load_cert_chain(user["certificate"], user["key"])
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def stop(self) -> None:
        """Be gone: connections break, and new ones are refused."""
        if self._runner is not None:
            for server in self._runner.sites.copy():
                await server.stop()
            await self._runner.cleanup()
            self._runner = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.path, dict(request.query), request.headers.get("Authorization", ""))
        self.seen.append(seen)
        fault = self._fault(seen)
        if fault.answer is not None:
            return await fault.answer(request)
        assert self._client is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _OF_A_HOP}
        url = self.kubeconfig["cluster"]["server"] + request.raw_path
        async with self._client.request(request.method, url, data=await request.read(), headers=headers) as upstream:
            passed = {
                k: v for k, v in upstream.headers.items() if k.lower() not in ("transfer-encoding", "content-length")
            }
            response = web.StreamResponse(status=upstream.status, headers=passed)
            response.enable_chunked_encoding()
            await response.prepare(request)
            sent = 0
            if fault.silent:
                await asyncio.sleep(3600)
            async for chunk in upstream.content.iter_any():
                if fault.cut_after is not None and sent + len(chunk) >= fault.cut_after:
                    await response.write(chunk[: fault.cut_after - sent])
                    return cut(request, response)
                sent += len(chunk)
                await response.write(chunk)
            await response.write_eof()
        return response

    def _fault(self, seen: Seen) -> Fault:
        for number, (when, fault) in enumerate(self.faults):
            if when(seen):
                fault.times -= 1
                if fault.times <= 0:
                    del self.faults[number]
                return fault
        return Fault(times=0)


def cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Break the connection."""
    assert request.transport is not None
    request.transport.abort()
    return response


def read_kubeconfig(kubeconfig: Any, folder: Any) -> dict[str, Any]:
    """What the proxy needs of a kubeconfig with its certificates in it; these are written into a folder."""
    import base64

    parsed = yaml.safe_load(kubeconfig.read_text())
    cluster, user = parsed["clusters"][0]["cluster"], parsed["users"][0]["user"]
    files = {}
    for name in ("client-certificate", "client-key"):
        files[name] = folder / f"proxy-{name}"
        files[name].write_bytes(base64.b64decode(user[f"{name}-data"]))
    return {
        "cluster": {
            "server": cluster["server"],
            "ca": base64.b64decode(cluster["certificate-authority-data"]).decode(),
        },
        "user": {"certificate": files["client-certificate"], "key": files["client-key"]},
    }


def status(code: int, reason: str = "", message: str = "", **details: Any) -> dict[str, Any]:
    """A Status object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message or reason,
        **({"details": details} if details else {}),
    }


def refuses(code: int, reason: str = "", message: str = "", retry_after: str = "", **details: Any) -> Answer:
    """An answer with an error's code and a Status."""

    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"Retry-After": retry_after} if retry_after else {}
        return web.json_response(status(code, reason, message, **details), status=code, headers=headers)

    return answer


def says(code: int, text: str) -> Answer:
    """An answer that is no Status, as a load balancer's."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=text)

    return answer


def streams(*lines: str | dict[str, Any]) -> Answer:
    """A watch with these lines, which then ends."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for line in lines:
            text = line if isinstance(line, str) else json.dumps(line)
            await response.write(text.encode() + b"\n")
        await response.write_eof()
        return response

    return answer
