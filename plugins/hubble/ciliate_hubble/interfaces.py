"""Names of the node's network devices, by index. Those of pods are not asked for here: their ends have them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

FRESH = 10.0
"""Seconds that an answer holds."""


class Interfaces:
    """Asks the kernel, and remembers. ask: raises OSError if there is no such device."""

    def __init__(self, ask: Callable[[int], str] = socket.if_indextoname) -> None:
        self._ask = ask
        self._names: dict[int, str] = {}
        self._until = 0.0

    def name(self, index: int) -> str:
        """A device's name; empty if there is no such device."""
        now = time.monotonic()
        if now >= self._until:
            self._names.clear()
            self._until = now + FRESH
        name = self._names.get(index)
        if name is None:
            name = ""
            with suppress(OSError):
                name = self._ask(index)
            self._names[index] = name
        return name
