"""Ends of flows: who a flow's source or destination was, when it happened. Flows name them by index.

An end is never changed: when a pod's labels change, later flows have another end. An end that no flow in the ring names
any more is forgotten, and its index given to another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COLLECT_FROM = 8192
"""Ends from which on it is worth looking which are still named."""


class Workload(NamedTuple):
    """What a pod belongs to."""

    kind: str
    name: str


class End(NamedTuple):
    """One end. Labels are `source:key=value`, sorted."""

    identity: int = 0
    endpoint: int = 0  # of this node; 0: elsewhere
    namespace: str = ""
    pod: str = ""
    labels: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = ()
    cluster: str = ""
    interface: str = ""  # the host's end of a local pod's veth


class Ends:
    """The table. Index 0 is an end of which nothing is known."""

    def __init__(self) -> None:
        self.rows: list[End] = [End()]
        self.identities: NDArray[np.uint32] = np.zeros(1024, np.uint32)  # by index
        self.life = 0  # grows whenever an index is given to another end: what was learned by index is then void
        self._indices: dict[End, int] = {self.rows[0]: 0}
        self._free: list[int] = []
        self._collect_at = COLLECT_FROM

    def __len__(self) -> int:
        return len(self._indices)

    def index(self, end: End) -> int:
        """The index of an end, which is added if it is new."""
        known = self._indices.get(end)
        if known is not None:
            return known
        if self._free:
            index = self._free.pop()
            self.rows[index] = end
        else:
            index = len(self.rows)
            self.rows.append(end)
            if index >= len(self.identities):
                self.identities = np.concatenate([self.identities, np.zeros_like(self.identities)])
        self.identities[index] = end.identity
        self._indices[end] = index
        return index

    @property
    def due(self) -> bool:
        """Whether so many ends have been added since the last `collect` that another is worth its while."""
        return len(self._indices) >= self._collect_at

    def collect(self, *named: NDArray[Any]) -> None:
        """Forget the ends that none of these arrays of indices names."""
        used = np.zeros(len(self.rows), np.bool_)
        used[0] = True
        used[self._free] = True
        for indices in named:
            used[indices] = True
        gone = np.flatnonzero(~used).tolist()
        for index in gone:
            del self._indices[self.rows[index]]
            self.rows[index] = self.rows[0]
        if gone:
            self._free += gone
            self.life += 1
        self._collect_at = max(COLLECT_FROM, 2 * len(self._indices))
