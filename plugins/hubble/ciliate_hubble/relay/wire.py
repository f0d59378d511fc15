"""What the relay must know of a GetFlowsResponse, read from its bytes: the rest passes through as it came."""

from __future__ import annotations

_TIME, _FLOW = 1001, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are no protobuf message."""


def message_time(message: bytes) -> int:
    """Field `time`, in ns since 1970; 0 if there is none. Raises WireError."""
    found = _field(message, _TIME)
    if found is None:
        return 0
    at, end = found
    seconds = nanos = 0
    while at < end:
        tag, at = _varint(message, at)
        if tag & 7 != _VARINT:
            at = _skip(message, at, tag & 7)
            continue
        value, at = _varint(message, at)
        if tag >> 3 == 1:
            seconds = value - (1 << 64) if value >> 63 else value
        elif tag >> 3 == 2:
            nanos = value
    return seconds * 1_000_000_000 + nanos


def is_flow(message: bytes) -> bool:
    """Whether it carries a flow, not a node's status or a loss."""
    return _field(message, _FLOW) is not None


def _field(message: bytes, number: int) -> tuple[int, int] | None:
    """Begin and end of the last field of a number that has bytes; None if there is none."""
    at, found = 0, None
    length = len(message)
    while at < length:
        tag, at = _varint(message, at)
        if tag & 7 == _BYTES:
            size, at = _varint(message, at)
            if at + size > length:
                raise WireError("a field ends after its message")
            if tag >> 3 == number:
                found = (at, at + size)
            at += size
        else:
            at = _skip(message, at, tag & 7)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
    except IndexError:
        raise WireError("a number ends after its message") from None


def _skip(message: bytes, at: int, kind: int) -> int:
    """The end of a field's value."""
    if kind == _VARINT:
        return _varint(message, at)[1]
    if kind == _BYTES:
        size, at = _varint(message, at)
        return at + size
    if kind in (_FIXED64, _FIXED32):
        return at + (8 if kind == _FIXED64 else 4)
    raise WireError(f"wire type {kind} is unknown")
