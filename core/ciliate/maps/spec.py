"""What a BPF map is, before there is one: pure declarations.

A `MapSpec` names a map, its kernel type and the layout of its key and value as numpy dtypes. Declaring
one touches nothing; the registry alone creates, pins, opens and deletes. The dtype's field names, offsets
and sizes must be those of the C struct; they are compared through BTF when a program set is loaded.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

NAME_MAX = 15  # BPF_OBJ_NAME_LEN less the terminating zero


class MapKind(enum.IntEnum):
    """Kernel map types in use (enum bpf_map_type, linux/bpf.h)."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


class MapFlag(enum.IntFlag):
    """Creation flags (linux/bpf.h)."""

    NONE = 0
    NO_PREALLOC = 1 << 0
    MMAPABLE = 1 << 10


class Writer(enum.Enum):
    """Who writes a map's entries: decides how a new program set takes them over."""

    USER = "user"  # user space: a new set's map is filled first
    PROGRAM = "program"  # the programs: a new set reads the old map through


@dataclass(frozen=True)
class MapSpec:
    """One map. `name` is the C variable, the pin and the kernel's name (15 characters at most)."""

    name: str
    kind: MapKind
    key: np.dtype[np.void] | np.dtype[np.uint32]
    value: np.dtype[np.void] | np.dtype[np.uint32] | np.dtype[np.uint64]
    max_entries: int
    doc: str
    flags: MapFlag = MapFlag.NONE
    writer: Writer = Writer.USER
    predecessor_of: str = ""
    """Not a map of its own: what the named one gave way to, if it had this key and value; else an empty map."""

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= NAME_MAX:
            raise ValueError(f"map name {self.name!r}: must have 1 to {NAME_MAX} characters")
        if self.max_entries <= 0:
            raise ValueError(f"map {self.name}: max_entries must be positive, not {self.max_entries}")
