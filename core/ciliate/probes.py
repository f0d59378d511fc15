"""The health port: what a kubelet, or a load balancer, asks over HTTP whether this process lives and is ready.

`/healthz` answers as long as the loop turns: 200, always. `/readyz` answers 200, or 503 with the reasons, one a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ciliate.config import ConfigError

_TIMEOUT = 5.0
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
_LINE_MOST = 4096


class ProbeServer:
    """Serves both paths at `listen` (host:port); `unready` gives reasons by plugin, none if the process is ready."""

    def __init__(self, listen: str, unready: Callable[[], Mapping[str, list[str]]]) -> None:
        """Raises ConfigError."""
        host, separator, port = listen.rpartition(":")
        if not separator or not host or not port.isdigit():
            raise ConfigError(f"health.listen: {listen!r} must be host:port")
        self._host, self._port = host.strip("[]"), int(port)
        self._unready = unready

    async def run(self) -> None:
        """Serve, for ever. Raises OSError if the port can't be had."""
        server = await asyncio.start_server(self._answer, self._host, self._port, limit=_LINE_MOST)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                request = (await reader.readline()).split()
                while (await reader.readline()).strip():  # headers, of which none matters
                    pass
                status, text = self._page(request)
                body = text.encode()
                head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (OSError, ValueError, TimeoutError):  # a peer that left, or speaks something else
            pass
        finally:
            writer.close()

    def _page(self, request: list[bytes]) -> tuple[int, str]:
        if len(request) < 2 or request[0] not in (b"GET", b"HEAD"):
            return 405, "use GET\n"
        path = request[1].partition(b"?")[0]
        if path == b"/healthz":
            return 200, "ok\n"
        if path != b"/readyz":
            return 404, "there are /healthz and /readyz\n"
        reasons = [f"{plugin}: {reason}" for plugin, each in self._unready().items() for reason in each]
        return (503, "\n".join(reasons) + "\n") if reasons else (200, "ready\n")
