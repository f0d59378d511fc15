"""A ring of records in shared memory: one process writes, any number map it read-only and keep a cursor of their own.

No reader is known to the writer: one that never reads costs nothing, one that is too slow finds out what it has lost.
The file has a page of words (positions count records since the ring was made) and the records' dtype, then the slots.
"""

from __future__ import annotations

import ast
import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ciliate.counters import store_fence
from numpy.typing import NDArray

_MAGIC = 0x31676E6972696C63  # "cliring1"
_HEAD = 8192
_TEXT = 64  # where the dtype's description begins
_fence = store_fence()


class _Word:
    """Indices of the head's 8-byte words."""

    MAGIC, SLOTS, WRITTEN, WRITING, FIRST, LOST = range(6)


class Read(NamedTuple):
    """What one read gave."""

    records: NDArray[Any]
    lost: int  # records overwritten before this reader came to them


def ring_path(run_dir: Path) -> Path:
    """Where a node's ring of events is: under run_dir if that is in memory, else in /dev/shm by run_dir's name."""
    device = run_dir.stat().st_dev
    with Path("/proc/self/mountinfo").open() as mounts:
        kinds = {line.split()[2]: line.partition(" - ")[2].split()[0] for line in mounts}
    if kinds.get(f"{os.major(device)}:{os.minor(device)}") == "tmpfs":
        return run_dir / "events.ring"
    return Path("/dev/shm") / f"ciliate{str(run_dir.resolve()).replace('/', '-')}.ring"


class _Ring:
    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            self.inode = os.fstat(descriptor).st_ino
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            memory = mmap.mmap(descriptor, 0, mmap.MAP_SHARED, access)
        finally:
            os.close(descriptor)
        self.words = memoryview(memory).cast("Q") if len(memory) > _HEAD else memoryview(bytes(_HEAD)).cast("Q")
        if self.words[_Word.MAGIC] != _MAGIC:
            raise ValueError(f"{path}: is no ring of records")
        text = bytes(memory[_TEXT:_HEAD]).rstrip(b"\0").decode()
        self.dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(text))
        self.count = self.words[_Word.SLOTS]
        self.slots = np.ndarray((self.count,), f"V{self.dtype.itemsize}", memory, _HEAD)


class RingWriter(_Ring):
    """The one writer. A ring of the same shape that an earlier life left is gone on with: its readers stay."""

    def __init__(self, path: Path, dtype: np.dtype[Any], slots: int) -> None:
        try:
            super().__init__(path, writable=True)
            if (self.dtype, self.count) != (dtype, slots):
                raise ValueError(f"{path}: has another shape")
        except (OSError, ValueError, SyntaxError):
            _create(path, dtype, slots)
            super().__init__(path, writable=True)
        end = max(self.words[_Word.WRITING], self.words[_Word.WRITTEN])  # the last life may have ended inside a write
        self.words[_Word.WRITING] = end
        self.words[_Word.FIRST] = end
        self.words[_Word.WRITTEN] = end

    def write(self, records: NDArray[Any]) -> None:
        """Append records; the oldest give way."""
        start = self.words[_Word.WRITTEN]
        end = start + len(records)
        self.words[_Word.WRITING] = end
        _fence()
        rows = records[-self.count :].view(self.slots.dtype)
        at = (end - len(rows)) % self.count
        before = min(len(rows), self.count - at)
        self.slots[at : at + before] = rows[:before]
        self.slots[: len(rows) - before] = rows[before:]
        _fence()
        self.words[_Word.WRITTEN] = end

    def note_lost(self, count: int) -> None:
        """Tell readers how many records never came into the ring."""
        self.words[_Word.LOST] = count


class RingReader(_Ring):
    """One reader's cursor, which starts at what is written next."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if there is no ring, ValueError if it is something else."""
        super().__init__(path, writable=False)
        self._next = self.words[_Word.WRITTEN]

    def read(self, most: int) -> Read:
        """A copy of up to `most` records, and how many were overwritten before."""
        end, start = self.words[_Word.WRITTEN], self._next
        _fence()
        begin = max(start, self.words[_Word.FIRST], end - self.count)
        end = min(end, begin + most)
        indices = np.arange(begin, max(begin, end)) % self.count
        records = self.slots[indices]
        _fence()
        safe = min(max(begin, self.words[_Word.WRITING] - self.count), max(begin, end))  # what came under the copying
        self._next = max(begin, end)
        return Read(records[safe - begin :].view(self.dtype), safe - start)

    def lost(self) -> int:
        """How many records never came into the ring, as the writer last said."""
        return int(self.words[_Word.LOST])

    def replaced(self) -> bool:
        """Whether a writer has made another ring, so that this one will get no more."""
        try:
            return self.path.stat().st_ino != self.inode
        except FileNotFoundError:
            return True


def _create(path: Path, dtype: np.dtype[Any], slots: int) -> None:
    text = repr(np.lib.format.dtype_to_descr(dtype)).encode()
    if len(text) > _HEAD - _TEXT:
        raise ValueError(f"{path}: the dtype's description of {len(text)} bytes doesn't fit")
    words = np.array([_MAGIC, slots, 0, 0, 0, 0, 0, 0], np.uint64)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write((words.tobytes() + text).ljust(_HEAD, b"\0"))
        file.truncate(_HEAD + slots * dtype.itemsize)
    new.chmod(0o600)
    new.rename(path)
