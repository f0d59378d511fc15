"""Conntrack's housekeeping: finds entries of flows that are over, and has the kernel remove them; counts flows anew.

User space names the candidates; the program `conntrack_collect` looks again, since a packet may have come meanwhile.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ciliate.maps.map import Map
from ciliate.model.conntrack import ConntrackState
from ciliate.model.endpoint import ENDPOINT_VALID
from ciliate.programs.object import ProgramSet
from numpy.typing import NDArray

from ciliate_cni.flowlimits import FlowLimits, charged, corrections, recount

_CONTEXT = struct.Struct("=IIIIQ")  # struct collect_context: count, table, deleted, kept, now
_KEYS = 1024  # COLLECT_MAX
_TCP = 6
_TABLES = {"conntrack": 0, "conntrack_new": 1}  # CollectTable

TIMEOUTS = {"timeout_tcp": 8000, "timeout_any": 60, "timeout_syn": 60, "timeout_fin": 10}
"""Seconds without a packet after which a flow is over: TCP, others, TCP unanswered, TCP closing."""


@dataclass
class Collected:
    """What one collection did."""

    seconds: float = 0.0
    alive: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    recounted: int = 0  # endpoints whose flows had been counted wrong


def ticks_per_second() -> int:
    """The kernel's HZ, in whose ticks the programs keep time."""
    for path, read in ((Path("/proc/config.gz"), gzip.open), (Path(f"/boot/config-{os.uname().release}"), open)):
        if path.exists():
            with read(path, "rt") as config:
                found = re.search(r"^CONFIG_HZ=(\d+)$", config.read(), re.MULTILINE)
            if found:
                return int(found[1])
    return 250


def over(keys: NDArray[Any], entries: NDArray[Any], now: int, hz: int) -> NDArray[np.bool_]:
    """Which entries had no packet for longer than their flow's timeout; `now` in ticks."""
    state, tcp = entries["state"], keys["protocol"] == _TCP
    limits = np.select(
        [~tcp, state == ConntrackState.NEW, state == ConntrackState.CLOSING],
        [TIMEOUTS["timeout_any"], TIMEOUTS["timeout_syn"], TIMEOUTS["timeout_fin"]],
        TIMEOUTS["timeout_tcp"],
    )
    idle = (np.uint64(now) - entries["seen"]).astype(np.int64)  # a packet may have come after `now`: negative
    return np.asarray(idle > limits * hz)


def orphaned(entries: NDArray[Any], endpoints: NDArray[Any]) -> NDArray[np.bool_]:
    """Which entries have an end that was an endpoint and is gone, whoever may have its id now."""
    ends = np.minimum(entries["endpoint"], len(endpoints) - 1)
    valid = endpoints["flags"] & ENDPOINT_VALID != 0
    current = valid[ends] & (endpoints["generation"][ends] == entries["generation"])
    return np.asarray(((ends != 0) & ~current).any(axis=1))


class Collector:
    """Collects in any thread, one collection at a time. keys, endpoints: the memory of `collect_keys`, `endpoints`."""

    def __init__(
        self, programs: ProgramSet, tables: dict[str, Map], keys: NDArray[Any], endpoints: NDArray[Any],
        limits: FlowLimits,
    ) -> None:  # fmt: skip
        self._program = programs.program("conntrack_collect")
        known = "conntrack_recount" in programs.names  # an older set that goes on may lack it, and counts no flows
        self._recount = programs.program("conntrack_recount") if known else None
        self._tables = tables
        self._keys = keys
        self._endpoints = endpoints
        self._limits = limits
        self._hz = ticks_per_second()

    def collect(self) -> Collected:
        """Go through both tables once: about 1 µs an entry."""
        began = time.perf_counter()
        done = Collected()
        for name, table in self._tables.items():
            before = self._limits.counts()
            keys, entries = table.items()
            if name == "conntrack" and self._recount is not None:
                wrong = corrections(before, charged(entries), self._limits.counts())
                done.recounted = recount(self._recount, wrong)
            now = self._run(0, _TABLES[name])[1]
            candidates = keys[over(keys, entries, now, self._hz) | orphaned(entries, self._endpoints)]
            deleted = 0
            for start in range(0, len(candidates), _KEYS):
                part = candidates[start : start + _KEYS]
                self._keys[: len(part)] = part
                deleted += self._run(len(part), _TABLES[name])[0]
            done.alive[name], done.deleted[name] = len(keys) - deleted, deleted
        done.seconds = time.perf_counter() - began
        return done

    def now(self) -> int:
        """The kernel's clock in ticks."""
        return self._run(0, 0)[1]

    def _run(self, count: int, table: int) -> tuple[int, int]:
        """Run the program on the first `count` keys: how many entries it deleted, and its clock."""
        answer = self._program.test_run(ctx=_CONTEXT.pack(count, table, 0, 0, 0))
        _, _, deleted, _, now = _CONTEXT.unpack(answer.ctx[: _CONTEXT.size])
        return deleted, now
