"""Frames on an API socket: four bytes of length, little-endian, then a msgpack map."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec

LENGTH = struct.Struct("<I")
FRAME_MOST = 64 * 1024 * 1024


class Call(msgspec.Struct, kw_only=True):
    """A request."""

    method: str
    path: str
    query: dict[str, str] = {}
    body: Any = None


class Answer(msgspec.Struct, kw_only=True):
    """An answer; of a stream all but the last have `more`."""

    status: int = 200
    body: Any = None
    more: bool = False


class FrameError(Exception):
    """A peer sent what is no frame."""


def frame(message: Call | Answer) -> bytes:
    """A message as bytes. Values that msgpack can't say are sent as text."""
    raw = msgspec.msgpack.encode(message, enc_hook=str)
    return LENGTH.pack(len(raw)) + raw


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next message's bytes, or None at the end. Raises FrameError."""
    try:
        header = await reader.readexactly(LENGTH.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise FrameError("the connection ended inside a frame's length") from error
        return None
    (length,) = LENGTH.unpack(header)
    if length > FRAME_MOST:
        raise FrameError(f"a frame of {length} bytes is over the limit of {FRAME_MOST}")
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise FrameError("the connection ended inside a frame") from error
