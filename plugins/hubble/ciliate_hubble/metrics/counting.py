"""What every metric of flows does: choose rows, make keys of them, and say what labels a row has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import Metric

from ciliate_hubble.metrics.batch import Batch, Rows
from ciliate_hubble.metrics.keys import Keys, mixed
from ciliate_hubble.metrics.labels import FlowLabels
from ciliate_hubble.metrics.options import MetricOptions
from ciliate_hubble.metrics.series import Labels, Series

Codes = NDArray[np.uint64]
"""What of a row decides a metric's own labels, in one number."""


class FlowMetric(ABC):
    """One metric that is listed under `hubble.metrics`: one counter or several, with the same labels added."""

    def __init__(self, options: MetricOptions) -> None:
        self.options = options
        self.added = FlowLabels(options)
        self.counters: list[Series] = []

    def counter(self, name: str, doc: str, *labels: str) -> Series:
        """Another counter of this metric."""
        self.counters.append(Series(f"hubble_{name}", doc, labels, self.added.names))
        return self.counters[-1]

    @abstractmethod
    def count(self, batch: Batch) -> None:
        """Count a batch."""

    def families(self) -> Iterable[Metric]:
        """All there is to scrape."""
        return (counter.family() for counter in self.counters)

    def forget_keys(self) -> None:
        """Indices of ends were given to others."""
        for counter in self.counters:
            counter.forget_keys()

    def pods(self) -> set[tuple[str, str]]:
        """Pods (namespace and name) that some series is about alone."""
        if not self.added.by_pod:
            return set()
        return set().union(*(self.added.pods(labels) for counter in self.counters for labels in counter.added_labels()))

    def forget_pods(self, pods: set[tuple[str, str]]) -> None:
        """Drop the series that are about one of these pods alone."""
        for counter in self.counters:
            counter.remove(lambda added: bool(self.added.pods(added) & pods))
        self.added.forget(pods)

    def grouped(
        self, counter: Series, batch: Batch, rows: Rows | None, codes: Codes, own: Callable[[int], Labels]
    ) -> None:
        """Count rows (None: all) by code and by what the added labels depend on. own: labels of a row of the batch."""
        if not len(codes):
            return

        def labels(place: int) -> Labels:
            row = place if rows is None else int(rows[place])
            return own(row) + self.added.values(batch.flows[row], batch.tables.ends.rows)

        counter.add(self._keys(batch, rows, codes), labels)

    def _keys(self, batch: Batch, rows: Rows | None, codes: Codes) -> Keys:
        if not self.added.names:
            return codes
        added = batch.key_of(self.added.made_of)
        return mixed(codes, added if rows is None else added[rows])


def codes(*parts: tuple[NDArray[np.uint8] | NDArray[np.uint16], int]) -> Codes:
    """Columns side by side in one number; each with its width in bits."""
    whole, at = None, 0
    for column, width in parts:
        part = column.astype(np.uint64)
        if at:
            part <<= np.uint64(at)
        whole = part if whole is None else whole | part
        at += width
    assert whole is not None
    return whole
