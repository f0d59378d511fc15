"""A program in a pod's container, as `kubectl exec` runs it: its input and output as a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec
from ciliate.api.client import Client, NotServedError

from ciliate_kubernetes.store.config import Options
from ciliate_kubernetes.store.credentials import Credentials

_STDOUT, _STDERR, _ERROR = 1, 2, 3
_SLICE = 60.0
_RUN_DIR = "/run/ciliate"  # in every container of ours


class Execution:
    """See `ciliate.api.client.Connection`. Raises OSError where the container, or the way to it, fails."""

    def __init__(self, options: Options, namespace: str, pod: str, container: str, command: Sequence[str]) -> None:
        """Start the program."""
        from kubernetes.stream.ws_client import WSClient
        from websocket import WebSocketException

        self._timeout: float | None = None
        self._buffer = bytearray()
        self._stderr = b""
        url, headers, configuration = asyncio.run(_place(options, namespace, pod, container, command))
        try:
            self._socket = WSClient(configuration, url, headers, False, binary=True)
        except (WebSocketException, OSError) as error:
            raise OSError(f"pod {namespace}/{pod}, container {container}: {_reason(error)}") from error

    def settimeout(self, timeout: float | None) -> None:
        """Seconds that `recv` waits; None: for ever."""
        self._timeout = timeout

    def sendall(self, data: bytes, /) -> None:
        """Send to the program's input."""
        self._socket.write_stdin(data)

    def recv(self, most: int, /) -> bytes:
        """From the program's output; nothing once it has ended. Raises TimeoutError, OSError with its last words."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._buffer:
            left = _SLICE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._buffer += self._socket.read_channel(_STDOUT, timeout=min(left, _SLICE)) or b""
            self._stderr += self._socket.read_channel(_STDERR) or b""
            if not self._buffer and not self._socket.is_open():
                if said := self._stderr.decode(errors="replace").strip():
                    raise OSError(said.splitlines()[-1])
                return b""
        part = bytes(self._buffer[:most])
        del self._buffer[:most]
        return part

    def close(self) -> None:
        """End the program's input; it ends with it."""
        self._socket.close()


def _reason(error: Exception) -> str:
    """What the API server says of a refusal; else what the library does."""
    with suppress(msgspec.MsgspecError, KeyError, TypeError):
        return str(msgspec.json.decode(getattr(error, "resp_body", None) or b"")["message"])
    return str(error)


async def _place(
    options: Options, namespace: str, pod: str, container: str, command: Sequence[str]
) -> tuple[str, dict[str, str], object]:
    configuration = await Credentials(options).load()
    query = [("command", word) for word in command]
    query += [("container", container), *((stream, "true") for stream in ("stdin", "stdout", "stderr"))]
    host = configuration.host.rstrip("/").replace("http", "ws", 1)
    path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/exec"
    token = await configuration.get_api_key_with_prefix("BearerToken")
    return f"{host}{path}?{urlencode(query)}", {"authorization": token} if token else {}, configuration


def open_client(
    options: Options, namespace: str, pod: str, container: str, process: str, timeout: float | None
) -> Client:
    """A client of a process in a pod's container; without a process, of whichever of the node's serves the route.

    Raises NotServedError.
    """
    path = Path(_RUN_DIR, f"{process or container}.sock")
    words = ["python", "-m", "ciliate.api.bridge", *([] if process else ["--any"]), str(path)]
    try:
        execution = Execution(options, namespace, pod, container, words)
    except OSError as error:
        raise NotServedError(path, str(error)) from error
    execution.settimeout(timeout)
    return Client(path, connection=execution)
