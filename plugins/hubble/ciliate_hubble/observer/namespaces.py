"""Which namespaces have been seen in flows lately: in the last hour."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ciliate_hubble.columns import Flows
from ciliate_hubble.ends import Ends

KEPT = 3600.0
"""Seconds."""


class Namespaces:
    """A sink of flows, which only marks ends; `fold` then asks them for their namespaces."""

    def __init__(self, ends: Ends, kept: float = KEPT) -> None:
        self._ends = ends
        self._kept = kept
        self._marks = np.zeros(1024, np.bool_)
        self._seen: dict[tuple[str, str], float] = {}  # cluster, namespace: when it was last folded

    def take(self, flows: Flows) -> None:
        """Note the ends of some flows."""
        if len(self._ends.rows) > len(self._marks):
            self._marks = np.concatenate([self._marks, np.zeros(len(self._ends.rows), np.bool_)])
        self._marks[flows["source_end"]] = True
        self._marks[flows["destination_end"]] = True

    def fold(self) -> None:
        """Work up what is marked: before it is asked for, and before an end's index is given to another."""
        now = time.monotonic()
        for index in np.flatnonzero(self._marks).tolist():
            end = self._ends.rows[index]
            if end.namespace:
                self._seen[end.cluster, end.namespace] = now
        self._marks.fill(False)
        for key in [key for key, seen in self._seen.items() if now - seen > self._kept]:
            del self._seen[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Pairs of cluster and namespace, sorted."""
        self.fold()
        return iter(sorted(self._seen))
