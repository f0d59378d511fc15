"""The join of a batch's ends: endpoint id, identity and, of what is not of this node, address; to an index into `Ends`.

A cache, each key of which has two slots to be in, answers for whole columns at once; what it lacks is worked out one by
one, and remembered until something that the answer was made of changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciliate_hubble.ends import End, Ends

_SLOTS_BITS = 15
_SHIFT = np.uint64(64 - _SLOTS_BITS)
_MIX, _MIX_LOW, _MIX_HIGH = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_NOBODY = np.uint64(2**64 - 1)
"""In an empty slot."""
REMEMBERED = 200_000
"""Answers that are remembered; when there are more, all are worked out anew."""
STRANGERS = 16
"""Ends without endpoint and identity that are looked up in a batch: a flood of spoofed addresses costs no more."""

Key = tuple[int, bytes]
"""endpoint << 32 | identity, and the address (empty where it says nothing more)."""
Resolve = Callable[[int, int, bytes], tuple[End, Iterable[Hashable]]]
"""Endpoint, identity and packed address to who that is, and what the answer depends on."""


def by_address(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys need an address: pods of other nodes, and ends whose identity nobody has said."""
    return (keys < 65536) & (keys - np.uint64(1) >= 255)


class EndJoin:
    """Joins one side of a batch."""

    def __init__(self, ends: Ends, resolve: Resolve) -> None:
        self._ends = ends
        self._resolve = resolve
        self._known: dict[Key, tuple[int, int]] = {}  # index of the end, and slot
        self._made_of: defaultdict[Hashable, set[Key]] = defaultdict(set)
        size = 1 << _SLOTS_BITS
        self._keys = np.full(size, _NOBODY)
        self._low = np.zeros(size, np.uint64)
        self._high = np.zeros(size, np.uint64)
        self._indices = np.zeros(size, np.uint32)

    def join(
        self, endpoints: NDArray[np.uint32], identities: NDArray[np.uint32], addresses: NDArray[Any]
    ) -> NDArray[np.uint32]:
        """The index of each row's end. addresses: shape (n, 16), u1."""
        keys = endpoints.astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= identities
        slots = keys * _MIX
        remote = by_address(keys)
        halves = None
        if remote.any():
            halves = np.zeros((len(keys), 2), np.uint64)
            halves[remote] = np.ascontiguousarray(addresses[remote]).view(np.uint64)
            slots ^= halves[:, 0] * _MIX_LOW
            slots ^= halves[:, 1] * _MIX_HIGH
            slots *= _MIX
        slots >>= _SHIFT
        at = slots.astype(np.intp)
        hits = self._hits(at, keys, halves)
        indices = self._indices[at]
        if not hits.all():
            misses = np.flatnonzero(~hits)
            missed = None if halves is None else halves[misses]
            indices[misses] = self._second(keys[misses], at[misses], missed)
        return indices

    def _hits(
        self, at: NDArray[np.intp], keys: NDArray[np.uint64], halves: NDArray[np.uint64] | None
    ) -> NDArray[np.bool_]:
        hits: NDArray[np.bool_] = self._keys[at] == keys
        if halves is not None:
            hits &= (self._low[at] == halves[:, 0]) & (self._high[at] == halves[:, 1])
        return hits

    def _second(
        self, keys: NDArray[np.uint64], at: NDArray[np.intp], halves: NDArray[np.uint64] | None
    ) -> NDArray[np.uint32]:
        """The indices of what was not in its first slot: it may be in its second, the first's neighbour."""
        hits = self._hits(at ^ 1, keys, halves)
        indices: NDArray[np.uint32] = self._indices[at ^ 1]
        if not hits.all():
            misses = np.flatnonzero(~hits)
            indices[misses] = self._missed(keys[misses], at[misses], None if halves is None else halves[misses])
        return indices

    def forget(self, dependency: Hashable) -> None:
        """Something that answers were made of has changed."""
        for key in self._made_of.pop(dependency, ()):
            known = self._known.pop(key, None)
            if known is not None:
                self._keys[known[1]] = self._keys[known[1] ^ 1] = _NOBODY

    def forget_all(self) -> None:
        """Everything may have changed."""
        self._known.clear()
        self._made_of.clear()
        self._keys.fill(_NOBODY)

    def named(self) -> NDArray[np.uint32]:
        """The indices that are remembered."""
        return np.fromiter((index for index, _ in self._known.values()), np.uint32, len(self._known))

    def _missed(
        self, keys: NDArray[np.uint64], slots: NDArray[np.intp], halves: NDArray[np.uint64] | None
    ) -> list[int]:
        if len(self._known) > REMEMBERED:
            self.forget_all()
        texts = [b""] * len(keys) if halves is None else _addresses(keys, halves)
        found: list[int] = []
        placed: set[Key] = set()
        strangers = 0
        for key, slot, address in zip(keys.tolist(), slots.tolist(), texts, strict=True):
            known = self._known.get((key, address))
            if known is None:
                strangers += not key
                if not key and strangers > STRANGERS:
                    found.append(0)
                    continue
                known = self._learn(key, address, slot)
            if (key, address) not in placed:
                placed.add((key, address))
                self._put(slot if self._keys[slot] == _NOBODY else slot ^ 1, key, address, known[0])
            found.append(known[0])
        return found

    def _put(self, slot: int, key: int, address: bytes, index: int) -> None:
        self._keys[slot] = key
        self._low[slot], self._high[slot] = _halves(address)
        self._indices[slot] = index

    def _learn(self, key: int, address: bytes, slot: int) -> tuple[int, int]:
        end, dependencies = self._resolve(key >> 32, key & 0xFFFFFFFF, address)
        known = self._known[key, address] = self._ends.index(end), slot
        for dependency in dependencies:
            self._made_of[dependency].add((key, address))
        return known


def _addresses(keys: NDArray[np.uint64], halves: NDArray[np.uint64]) -> list[bytes]:
    packed = halves.tobytes()
    return [packed[16 * row : 16 * row + 16] if needed else b"" for row, needed in enumerate(by_address(keys).tolist())]


def _halves(address: bytes) -> tuple[int, int]:
    if not address:
        return 0, 0
    return int.from_bytes(address[:8], "little"), int.from_bytes(address[8:], "little")
