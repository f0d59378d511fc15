"""The one consumer of a BPF ring buffer: records leave it as numpy arrays, never one by one.

The kernel maps the ring's pages twice in a row, so that all that is ready is one stretch of memory. Each record has a
header of 8 bytes whose first word is its length with two flags: still being written, and discarded by the program.
"""

from __future__ import annotations

import errno
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciliate.kernel.errors import KernelError
from ciliate.maps.elements import round_up_8
from ciliate.maps.map import Map
from ciliate.maps.spec import MapKind

_BUSY = np.uint32(1 << 31)
_DISCARD = np.uint32(1 << 30)
_HEADER = 8


class EventRing:
    """Reads records of one dtype, the ring's declared value, in the order in which programs reserved them.

    `fd` may be watched for reading by an event loop (level-triggered: it stays ready until the ring is empty). Records
    of another size are stepped over and counted in `foreign`. There must be one EventRing to a ring.
    """

    def __init__(self, ring: Map, lost: Map | None = None) -> None:
        """lost: the per-CPU array in whose entry 0 programs count what found the ring full."""
        if ring.spec.kind is not MapKind.RINGBUF:
            raise TypeError(f"map {ring.name} is no ring buffer")
        self.fd = ring.fd
        self.dtype = ring.spec.value
        self.foreign = 0
        self._lost = lost
        self._size = self.dtype.itemsize
        self._stride = _HEADER + round_up_8(self._size)
        self._mask = ring.spec.max_entries - 1
        both = mmap.PROT_READ | mmap.PROT_WRITE
        page = mmap.PAGESIZE
        try:
            own = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, both)
            theirs = mmap.mmap(ring.fd, page + 2 * ring.spec.max_entries, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as error:
            how = "only the process that owns the ring drains it" if error.errno in (errno.EPERM, errno.EACCES) else ""
            raise KernelError(error.errno or errno.EIO, f"mapping the ring {ring.name} into memory", how) from error
        self._consumed = np.ndarray((1,), np.uint64, own)
        self._produced = np.ndarray((1,), np.uint64, theirs)
        self._data = np.ndarray((2 * ring.spec.max_entries,), np.uint8, theirs, page)

    def read(self, limit: int = 65_536) -> NDArray[Any]:
        """Up to `limit` records, copied out, shape (n,); empty only if none is ready. The array has strides."""
        while True:
            start = int(self._consumed[0])
            offset = start & self._mask
            ready = int(self._produced[0]) - start
            count = min(max(ready // self._stride, 1), limit)
            if ready == 0:
                return np.empty(0, self.dtype)
            lengths = np.ndarray((count,), np.uint32, self._data, offset, (self._stride,)).copy()
            whole = (lengths & ~_DISCARD) == self._size
            if not whole.all():
                count = int(whole.argmin())
            if count == 0:
                if lengths[0] & _BUSY:
                    return np.empty(0, self.dtype)
                self._step_over(start, int(lengths[0]))
                continue
            records = self._copy(offset, count)
            self._consumed[0] = start + count * self._stride
            discarded = (lengths[:count] & _DISCARD) != 0
            if discarded.any():
                records = records[~discarded]
            if len(records):
                return records

    def lost(self) -> int | None:
        """How many records programs could not write since the map was made; None if nobody counts them."""
        if self._lost is None:
            return None
        counts = self._lost.lookup(0)
        return None if counts is None else int(counts.sum())

    def waiting(self) -> int:
        """Bytes that are in the ring, finished or not."""
        return int(self._produced[0]) - int(self._consumed[0])

    def _copy(self, offset: int, count: int) -> NDArray[Any]:
        """One copy of the stretch, headers and all; the result looks at the records in it."""
        stretch = self._data[offset : offset + count * self._stride].copy()
        return np.ndarray((count,), self.dtype, stretch.data, _HEADER, (self._stride,))

    def _step_over(self, start: int, length: int) -> None:
        if not length & int(_DISCARD):
            self.foreign += 1
        body = length & ~int(_DISCARD)
        self._consumed[0] = start + _HEADER + round_up_8(body)
