"""Keys of rows to slots, looked up a batch at a time: a hash table with open addressing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
UNKNOWN = -1
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ONE = np.uint64(1)


def mixed(key: Keys, more: NDArray[Any]) -> Keys:
    """A key that says `more` too. Of 64 bits: that two of a million differ and are taken for one is 3 in 10^8."""
    whole: Keys = key ^ more.astype(np.uint64)
    whole *= _FACTOR
    whole ^= whole >> _HALF
    return whole


class KeyTable:
    """The table. At most half of it is in use."""

    def __init__(self, bits: int = 8) -> None:
        self._keys: Keys = np.zeros(1 << bits, np.uint64)  # 0: free, so that keys are kept with 1 added
        self._slots: NDArray[np.intp] = np.full(1 << bits, UNKNOWN, np.intp)
        self._used = 0
        self._mask = (1 << bits) - 1
        self._shift = np.uint64(64 - bits)

    def __len__(self) -> int:
        return self._used

    def find(self, keys: Keys) -> NDArray[np.intp]:
        """Slots of keys; UNKNOWN where there is none."""
        keys = keys + _ONE
        at = self._homes(keys)
        found = self._keys[at]
        astray = np.flatnonzero((found != keys) & (found != 0))
        while len(astray):
            at[astray] = next_at = at[astray] + 1 & self._mask
            found = self._keys[next_at]
            astray = astray[(found != keys[astray]) & (found != 0)]
        return self._slots[at]

    def put(self, keys: Keys, slots: list[int]) -> None:
        """Add keys, each once, that are not there."""
        if 2 * (self._used + len(keys)) > len(self._keys):
            self._grow(len(keys))
        homes = self._homes(keys + _ONE).tolist()
        for key, at, slot in zip((keys + _ONE).tolist(), homes, slots, strict=True):
            while self._slots[at] != UNKNOWN:
                at = at + 1 & self._mask
            self._keys[at], self._slots[at] = key, slot
        self._used += len(keys)

    def _homes(self, keys: Keys) -> NDArray[np.intp]:
        return (keys * _FACTOR >> self._shift).astype(np.intp)

    def _grow(self, more: int) -> None:
        used = self._slots != UNKNOWN
        keys, slots = self._keys[used] - _ONE, self._slots[used].tolist()
        self.__init__((2 * (len(keys) + more)).bit_length() + 1)  # type: ignore[misc]  # begins anew, larger
        self.put(keys, slots)
