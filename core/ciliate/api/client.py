"""A blocking client of an API socket, for the CLI and tests: over the socket itself, or any other connection to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import msgspec

from ciliate.api.routes import ApiError
from ciliate.api.wire import LENGTH, Answer, Call, frame
from ciliate.directory import cards, serving

_ANSWER = msgspec.msgpack.Decoder(Answer)


class NotServedError(ApiError):
    """Nobody serves the socket."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(503, f"{path}: {reason}; is the process running? `ciliate status` shows them")


class Connection(Protocol):
    """A stream of bytes to an API socket, wherever that is. All but `close` may raise OSError."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""

    def recv(self, most: int, /) -> bytes:
        """Some bytes, none at the end."""

    def close(self) -> None:
        """End it."""


class Client:
    """One connection. Calls raise ApiError with the server's status and message."""

    def __init__(self, path: Path | str, timeout: float | None = 30.0, connection: Connection | None = None) -> None:
        """connection: one that leads to the socket at `path`, which is then only what errors speak of."""
        self._path = Path(path)
        self._socket: Connection = _connected(self._path, timeout) if connection is None else connection

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The body of a GET."""
        return self._call("GET", path, query, None)

    def post(self, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        """The body of the answer to a POST."""
        return self._call("POST", path, query, body)

    def delete(self, path: str) -> Any:
        """The body of the answer to a DELETE."""
        return self._call("DELETE", path, None, None)

    def stream(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """The bodies of a streaming GET, as they come."""
        self._send(Call(method="GET", path=path, query=dict(query or {})))
        while (answer := self._read()).more:
            yield answer.body
        if answer.body is not None:
            yield answer.body

    def answers(self, call: Call) -> Iterator[Answer]:
        """All answers to a call as they come, refusals among them: what a go-between passes on."""
        self._send(call)
        while (answer := self._receive()).more:
            yield answer
        yield answer

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _call(self, method: str, path: str, query: Mapping[str, str] | None, body: Any) -> Any:
        self._send(Call(method=method, path=path, query=dict(query or {}), body=body))
        return self._read().body

    def _send(self, call: Call) -> None:
        try:
            self._socket.sendall(frame(call))
        except OSError as error:  # the process has just ended
            raise NotServedError(self._path, error.strerror or str(error)) from error

    def _read(self) -> Answer:
        answer = self._receive()
        if answer.status >= 400:
            raise ApiError(answer.status, str(answer.body))
        return answer

    def _receive(self) -> Answer:
        try:
            (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
            answer = _ANSWER.decode(self._exactly(length))
        except TimeoutError as error:
            raise NotServedError(self._path, "no answer in time") from error
        except OSError as error:
            raise NotServedError(self._path, error.strerror or str(error)) from error
        return answer

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
            if not part:
                raise NotServedError(self._path, "the connection ended before the answer")
            parts += part
        return bytes(parts)


def _connected(path: Path, timeout: float | None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise NotServedError(path, error.strerror or str(error)) from error
    return connection


class NodeClient(Client):
    """A client of all of a node's processes: each call goes to the one whose card in the directory has its route.

    What no card has goes to `path`, the socket that is asked first where several serve it.
    """

    def __init__(self, path: Path | str, timeout: float | None = 30.0) -> None:
        self._home, self._timeout = Path(path), timeout
        self._open = False
        if not any(cards(self._home.parent)):
            self._connect(self._home)

    def _send(self, call: Call) -> None:
        sockets = [Path(card.socket) for card in serving(self._home.parent, call.method, call.path)]
        wanted = self._home if self._home in sockets or not sockets else sockets[0]
        if not self._open or wanted != self._path:
            self.close()
            self._connect(wanted)
        super()._send(call)

    def _connect(self, path: Path) -> None:
        super().__init__(path, self._timeout)
        self._open = True

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._open:
            super().close()
            self._open = False
