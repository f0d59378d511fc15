"""How many answered flows each endpoint may have: no pod takes all the room of the conntrack table.

Nobody gets more than `conntrack_share` of it, and nobody more than is free: so of several that want all, each gets the
same, and as much is left. (Switches share their buffers so.) Programs count and compare; with the agent gone, the last
limit holds.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from ciliate.model.endpoint import ENDPOINTS_MAX
from ciliate.programs.program import Program
from numpy.typing import NDArray

_CONTEXT = struct.Struct("=Ii")  # struct recount_context: endpoint, change
NEAR = 0.9
"""Of its limit: an endpoint that was at it is told of again only when it has been below this part of it."""
PRESSED = 0.5
"""Of its limit: from here on the table is worth collecting often."""


class FlowLimits:
    """The map `endpoint_flows`. entries: the room of the conntrack table; share: 0 to 1, the latter for no limit."""

    def __init__(self, flows: NDArray[Any], entries: int, share: float) -> None:
        self._flows = flows
        self._entries = entries
        self._share = share
        self._limited: set[int] = set()

    def of(self, endpoint: int) -> tuple[int, int]:
        """(flows, limit) of an endpoint; limit 0: none."""
        slot = self._flows[endpoint]
        return max(0, int(slot["flows"])), int(slot["limit"])

    def update(self) -> list[int]:
        """Set the limit by the room that is left; endpoints that have come to it since the last call (50 µs)."""
        flows = np.maximum(self._flows["flows"], 0)
        limit = limit_for(self._share, self._entries, int(flows.sum()))
        self._flows["limit"][:] = limit
        if not limit:
            return []
        fresh = set(np.flatnonzero(flows >= limit).tolist()) - self._limited
        self._limited = {n for n in self._limited if flows[n] >= NEAR * limit} | fresh
        return sorted(fresh)

    @property
    def pressed(self) -> bool:
        """Whether an endpoint is on its way to its limit."""
        limit = int(self._flows["limit"][0])
        return bool(limit) and bool((self._flows["flows"] > PRESSED * limit).any())

    def counts(self) -> NDArray[np.int32]:
        """A copy of what programs have counted, by endpoint id."""
        return np.array(self._flows["flows"])


def limit_for(share: float, entries: int, used: int) -> int:
    """How many flows an endpoint may have while all together have `used`; 0: no limit."""
    if share >= 1:
        return 0
    return max(1, min(int(share * entries), entries - used))


def charged(entries: NDArray[Any]) -> NDArray[np.intp]:
    """How many of some conntrack entries count for each endpoint id: `flows_of` in bpf/include/ciliate/flow_limit.h."""
    rows, origin = np.arange(len(entries)), entries["origin"] & 1
    ends = entries["endpoint"]
    began, reached = ends[rows, origin], ends[rows, 1 - origin]
    return np.bincount(np.where(began, began, reached), minlength=ENDPOINTS_MAX)


def corrections(before: NDArray[Any], counted: NDArray[Any], after: NDArray[Any]) -> NDArray[np.int64]:
    """What counts are surely wrong by: they were read before and after the table, while flows began and none ended."""
    return np.asarray(np.maximum(counted - after, 0) + np.minimum(counted - before, 0), np.int64)


def recount(program: Program, changes: NDArray[np.int64]) -> int:
    """Have the program `conntrack_recount` correct counts; of how many endpoints."""
    wrong = np.flatnonzero(changes)
    for endpoint in wrong:
        program.test_run(ctx=_CONTEXT.pack(int(endpoint), int(changes[endpoint])))
    return len(wrong)
