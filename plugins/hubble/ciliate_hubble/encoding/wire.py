"""Protobuf's wire format, as far as it is needed: varints, strings and messages, each with its field's number."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

_SMALL = 1 << 14


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = [_varint(number) for number in range(_SMALL)]


def varint(number: int) -> bytes:
    """A number, not negative."""
    return _VARINTS[number] if number < _SMALL else _varint(number)


@cache
def tag(field: int, kind: int) -> bytes:
    """What stands before a field's value. kind: 0 a varint, 2 bytes of a length that is told."""
    return _varint(field << 3 | kind)


def number(field: int, value: int) -> bytes:
    """A field of type uint, bool or enum; nothing if it is 0, as proto3 has it."""
    return tag(field, 0) + varint(value) if value else b""


def text(field: int, value: str) -> bytes:
    """A string field; nothing if it is empty."""
    return message(field, value.encode()) if value else b""


def texts(field: int, values: Iterable[str]) -> bytes:
    """A repeated string field."""
    return b"".join(message(field, value.encode()) for value in values)


def message(field: int, body: bytes) -> bytes:
    """A message or string field that is there, be it empty."""
    return tag(field, 2) + varint(len(body)) + body


def timestamp(nanoseconds: int) -> bytes:
    """The body of a google.protobuf.Timestamp."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return number(1, seconds) + number(2, rest)
