"""Making the kernel equal to a desired state, touching only what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ciliate.maps.elements import Element, encode_many, round_up_8
from ciliate.maps.map import Map
from ciliate.maps.spec import MapKind

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
K = TypeVar("K", contravariant=True)
V = TypeVar("V", contravariant=True)

Desired = Mapping[Any, Element] | tuple[NDArray[Any], NDArray[Any]]
"""A desired state: a mapping, or keys (n,) and values (n,) in the map's dtypes. Of equal keys the last counts."""


class IncompleteSourceError(RuntimeError):
    """Pruning was asked for on the word of a source that does not know everything yet."""


class Target(Protocol[K, V]):
    """What a reconciler does to the outside: three operations, each idempotent and repeatable after an error."""

    def update(self, key: K, value: V) -> None:
        """Make the key have this value, whether or not it has one already."""

    def delete(self, key: K) -> bool:
        """Make the key have no value; whether it had one."""

    def prune(self, desired: Iterable[K], complete: bool) -> int:
        """Delete every key that is not desired; how many. Raises IncompleteSourceError unless complete."""


@dataclass(frozen=True)
class Reconciled:
    """What was done: entries added, changed, removed, left as they were, and not desired but kept (incomplete)."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0


class MapReconciler:
    """A `Target` over a map that user space writes. Arrays have no absent entries: there, deleting writes zeros."""

    def __init__(self, target: Map) -> None:
        if target.per_cpu:
            raise TypeError(f"map {target.name} is per-CPU: programs write it, nothing reconciles it")
        self.map = target
        self._is_array = target.spec.kind is MapKind.ARRAY

    def update(self, key: Element, value: Element) -> None:
        """Write one entry."""
        self.map.update(key, value)

    def delete(self, key: Element) -> bool:
        """Delete one entry; whether there was one."""
        if not self._is_array:
            return self.map.delete(key)
        value = self.map.lookup(key)
        self.map.update(key, bytes(self.map.spec.value.itemsize))
        return value is not None and bool(value != np.zeros((), self.map.spec.value)[()])

    def prune(self, desired: Iterable[Element], complete: bool) -> int:
        """Delete every entry whose key is not desired; how many. Raises IncompleteSourceError unless complete."""
        if not complete:
            raise IncompleteSourceError(
                f"map {self.map.name} is not pruned: its source has not said that it is complete"
            )
        wanted = encode_many(desired, self.map.spec.key, f"keys of map {self.map.name}")
        keys, _ = self._present()
        present, desired_numbers = _identify(keys, wanted)
        return self._remove(keys[~np.isin(present, desired_numbers)])

    def reconcile(self, desired: Desired, complete: bool) -> Reconciled:
        """Read the map, write what is missing or differs and, if the source is complete, delete what is not desired.

        Repeating it after an error is safe. Reads everything: for a start, not for every change.
        """
        keys, values = _last_of_each(*self._arrays(desired))
        old_keys, old_values = self._present()
        present, where = _find(*_identify(old_keys, keys))
        same = present.copy()
        same[present] = _equal(old_values[where[present]], values[present])
        stale = np.ones(len(old_keys), bool)
        stale[where[present]] = False
        added = int((~present).sum())
        short_of_room = not self._is_array and len(old_keys) + added > self.map.spec.max_entries
        if complete and short_of_room:
            removed = self._remove(old_keys[stale])
        self.map.update_batch(keys[~same], values[~same])
        if complete and not short_of_room:
            removed = self._remove(old_keys[stale])
        return Reconciled(
            added=added,
            changed=len(keys) - added - int(same.sum()),
            removed=removed if complete else 0,
            unchanged=int(same.sum()),
            kept=0 if complete else int(stale.sum()),
        )

    def _arrays(self, desired: Desired) -> tuple[NDArray[Any], NDArray[Any]]:
        keys, values = desired if isinstance(desired, tuple) else (desired.keys(), desired.values())
        spec = self.map.spec
        raw_keys = encode_many(keys, spec.key, f"keys of map {spec.name}")
        raw_values = encode_many(values, spec.value, f"values of map {spec.name}")
        if len(raw_keys) != len(raw_values):
            raise ValueError(f"map {spec.name}: {len(raw_keys)} keys but {len(raw_values)} values")
        return raw_keys, raw_values

    def _present(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """What counts as present: of an array, entries that are not all zeros."""
        keys, values = self.map.items()
        if not self._is_array:
            return keys, values
        used = _bytes(values).any(axis=1)
        return keys[used], values[used]

    def _remove(self, keys: NDArray[Any]) -> int:
        if not self._is_array:
            return self.map.delete_batch(keys)
        self.map.update_batch(keys, np.zeros(len(keys), self.map.spec.value))
        return len(keys)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, size) bytes of (n,) values."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), array.dtype.itemsize)


def _identify(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A number for each key of two arrays, the same for equal keys only. Numbers sort ten times faster than keys."""
    raw = np.concatenate([_bytes(one), _bytes(other)])
    padded = np.zeros((len(raw), round_up_8(raw.shape[1])), np.uint8)
    padded[:, : raw.shape[1]] = raw
    words = padded.view(np.uint64)
    numbers = words[:, 0].copy()
    for column in range(1, words.shape[1]):
        numbers *= _MULTIPLIER
        numbers ^= (numbers >> np.uint64(32)) ^ words[:, column]
    order = np.argsort(numbers)
    twins = numbers[order[1:]] == numbers[order[:-1]]
    if (words[order[1:][twins]] != words[order[:-1][twins]]).any():  # two keys met in one number: do it the slow way
        numbers = np.unique(words, axis=0, return_inverse=True)[1].reshape(-1).astype(np.uint64)
    return numbers[: len(one)], numbers[len(one) :]


def _equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (_bytes(one) == _bytes(other)).all(axis=1)
    return result


def _find(haystack: NDArray[Any], needles: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """For each needle whether it is in the haystack, and where (0 if not)."""
    if len(haystack) == 0:
        return np.zeros(len(needles), bool), np.zeros(len(needles), np.intp)
    order = np.argsort(haystack)
    place = np.minimum(np.searchsorted(haystack, needles, sorter=order), len(haystack) - 1)
    where = order[place]
    return haystack[where] == needles, where


def _last_of_each(keys: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    numbers, _ = _identify(keys, keys[:0])
    unique, last = np.unique(numbers[::-1], return_index=True)
    if len(unique) == len(keys):
        return keys, values
    kept = np.sort(len(keys) - 1 - last)
    return keys[kept], values[kept]
