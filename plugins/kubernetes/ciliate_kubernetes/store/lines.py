"""A stream of JSON objects, one a line, as a watch has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp

SLICE = 0.005
"""Seconds of work, here and by whoever takes the lines, after which others get their turn."""
MOST_BYTES = 16 << 20
"""A line that is longer is no object: the API server's limit is a tenth of that."""


class CutError(Exception):
    """The stream ended in the middle of a line."""


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Whole lines, until the other side ends the stream. Raises CutError, and what aiohttp raises."""
    rest = b""
    turn = time.monotonic()
    while True:
        chunk = await content.readany()
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MOST_BYTES:
            raise CutError(f"a line of more than {MOST_BYTES} bytes")
        for line in whole:
            if time.monotonic() - turn > SLICE:
                await asyncio.sleep(0)
                turn = time.monotonic()
            yield line
    if rest:
        raise CutError(f"after {len(rest)} bytes of a line")
