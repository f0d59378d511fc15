"""What a route is, and how a path finds one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class ApiError(Exception):
    """A refusal with an HTTP-like status; the message says what, where and how to mend it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One call."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)  # from the pattern's {names}
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


Handler = Callable[[Request], Awaitable[Any]] | Callable[[Request], AsyncIterator[Any]]


@dataclass(frozen=True)
class Route:
    """A method and a path pattern, as `/endpoints/{id}`. A handler that is an async generator streams its answers."""

    method: str
    pattern: str
    handler: Handler
    doc: str

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The pattern's parameters, or None if the call is not this route's."""
        if method != self.method:
            return None
        wanted, given = self.pattern.strip("/").split("/"), path.strip("/").split("/")
        if len(wanted) != len(given):
            return None
        params: dict[str, str] = {}
        for part, value in zip(wanted, given, strict=True):
            if part.startswith("{"):
                params[part[1:-1]] = value
            elif part != value:
                return None
        return params
