"""Counters that grow by batches: rows are counted by key; a key becomes labels when it is met for the first time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily

from ciliate_hubble.metrics.keys import UNKNOWN, Keys, KeyTable

KEYS_MOST = 1 << 18
"""Keys that are remembered; then they are learned anew. Counts stay."""

Labels = tuple[str, ...]


class Series:
    """One counter with all its series."""

    def __init__(self, name: str, doc: str, labels: Labels, added: Labels = ()) -> None:
        self.name = name
        self.doc = doc
        self.label_names = (*labels, *added)
        self._own = len(labels)
        self._labels: list[Labels] = []  # by slot; only ever added to, so that a scrape in another thread may read
        self._slots: dict[Labels, int] = {}
        self._counts: NDArray[np.int64] = np.zeros(64, np.int64)  # by slot
        self._keys = KeyTable()

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, keys: Keys, labels: Callable[[int], Labels]) -> None:
        """Count rows. labels: those of a row, by its place in `keys`; asked of one row of each unknown key."""
        slots = self._keys.find(keys)
        if (unknown := np.flatnonzero(slots == UNKNOWN)).size:
            self._learn(keys, unknown, labels)
            slots = self._keys.find(keys)
        np.add.at(self._counts, slots, 1)

    def count(self, labels: Labels, by: int = 1) -> None:
        """Add to one series."""
        self._counts[self._slot(labels)] += by

    def forget_keys(self) -> None:
        """Keys mean other rows from now on."""
        self._keys = KeyTable()

    def added_labels(self) -> set[Labels]:
        """What stands behind the counter's own labels, of all series."""
        return {labels[self._own :] for labels in self._labels}

    def remove(self, gone: Callable[[Labels], bool]) -> None:
        """Drop series, by what stands behind the counter's own labels."""
        kept = [slot for slot, labels in enumerate(self._labels) if not gone(labels[self._own :])]
        if len(kept) == len(self._labels):
            return
        counts = np.zeros(max(64, len(kept)), np.int64)
        counts[: len(kept)] = self._counts[kept]
        self._labels = [self._labels[slot] for slot in kept]
        self._slots = {labels: slot for slot, labels in enumerate(self._labels)}
        self._counts = counts
        self.forget_keys()

    def family(self) -> CounterMetricFamily:
        """All series, for a scrape."""
        family = CounterMetricFamily(self.name, self.doc, labels=self.label_names)
        labels, counts = self._labels, self._counts
        for of, count in zip(list(labels), counts.tolist(), strict=False):
            family.add_metric(of, count)
        return family

    def _learn(self, keys: Keys, rows: NDArray[np.intp], labels: Callable[[int], Labels]) -> None:
        if len(self._keys) > KEYS_MOST:
            self.forget_keys()
            rows = np.arange(len(keys))
        new, first = np.unique(keys[rows], return_index=True)
        self._keys.put(new, [self._slot(labels(int(rows[place]))) for place in first])

    def _slot(self, labels: Labels) -> int:
        slot = self._slots.get(labels)
        if slot is None:
            slot = self._slots[labels] = len(self._labels)
            if slot == len(self._counts):
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._labels.append(labels)
        return slot
