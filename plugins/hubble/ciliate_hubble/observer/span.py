"""From where to where a request reads: number, first, follow, since, until, in all methods the same."""

from __future__ import annotations

from typing import Any, NamedTuple


class SpanError(ValueError):
    """Fields that exclude each other, or a time that is none."""


class Span(NamedTuple):
    """What a request asks for. Times are nanoseconds since the epoch."""

    number: int = 0  # 0: no limit
    first: bool = False
    follow: bool = False
    since: int | None = None
    until: int | None = None

    @property
    def most(self) -> int | None:
        """How many are given at most; one that follows is never done."""
        return self.number if self.number and not self.follow else None


def span_of(request: Any) -> Span:
    """Of a GetFlows, GetAgentEvents or GetDebugEvents request. Raises SpanError."""
    if request.first and request.follow:
        raise SpanError("first, follow: the first ones can't be followed; ask for one of both")
    since, until = (_time(request, name) for name in ("since", "until"))
    return Span(request.number, request.first, request.follow, since, until)


def _time(request: Any, name: str) -> int | None:
    if not request.HasField(name):
        return None
    time = getattr(request, name)
    if not 0 <= time.nanos < 1_000_000_000:
        raise SpanError(f"{name}.nanos: {time.nanos} must be from 0 to 999999999")
    return int(time.seconds) * 1_000_000_000 + int(time.nanos)
