"""Counters that the data path compares: a verdict is valid while the counter is what it was when the verdict was made.

A bump is a plain 4-byte store into a mapped array. Its order: a program that loads the new counter must also find every
entry written before the bump. Entries are written by system calls or stores that come earlier in this thread. x86-64
makes stores visible in program order, so nothing more is needed there. arm64 does not, and returning from a system
call is no barrier; there each bump is preceded by a full fence (libatomic's). The reader's half is in the programs:
they load the counters before they look anything up.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ciliate.maps.map import Map

_STEP = 2  # values of 4 bytes stand 8 bytes apart
_SEQUENTIAL = 5  # memory_order_seq_cst


class Counters:
    """The u32 counters of one mmapable array. One process bumps them; its threads may at the same time.

    A bump adds 1 modulo 2**32. What matters is that the number is another one: an index given twice may count once.
    """

    def __init__(self, counters: Map) -> None:
        if counters.spec.value != np.dtype("<u4"):
            raise TypeError(f"map {counters.name} holds no counters: its values are {counters.spec.value}, not u32")
        self.name = counters.name
        self._values = counters.mmap(writable=True)
        self._words = memoryview(self._values.base).cast("I")  # type: ignore[arg-type]
        self._lock = threading.Lock()
        self._fence = store_fence()

    def __len__(self) -> int:
        return len(self._values)

    def bump(self, index: int) -> None:
        """Bump one counter (0.3 µs). Raises IndexError."""
        if not 0 <= index < len(self._values):
            raise IndexError(f"map {self.name} has counters 0 to {len(self._values) - 1}, not {index}")
        with self._lock:
            self._fence()
            self._words[_STEP * index] = (self._words[_STEP * index] + 1) & 0xFFFFFFFF

    def bump_many(self, indices: NDArray[np.integer] | Sequence[int]) -> None:
        """Bump several. Raises IndexError, and then none is bumped."""
        where = np.asarray(indices, np.int64)
        if where.size == 0:
            return
        if where.min() < 0 or where.max() >= len(self._values):
            raise IndexError(
                f"map {self.name} has counters 0 to {len(self._values) - 1}, not {where.min()}..{where.max()}"
            )
        with self._lock:
            self._fence()
            self._values[where] += np.uint32(1)

    def bump_all(self) -> None:
        """Bump every counter (65,536: 40 µs)."""
        with self._lock:
            self._fence()
            self._values += np.uint32(1)

    def read(self, index: int) -> int:
        """The present number. Raises IndexError."""
        return int(self._values[index])

    def read_all(self) -> NDArray[np.uint32]:
        """A copy of all numbers, shape (n,)."""
        return np.array(self._values)


def store_fence() -> Callable[[], None]:
    """What has to be called before a store that publishes earlier writes. Raises OSError (arm64 without libatomic)."""
    if platform.machine() == "x86_64":
        return lambda: None
    function = ctypes.PyDLL("libatomic.so.1").atomic_thread_fence
    return lambda: function(_SEQUENTIAL)
