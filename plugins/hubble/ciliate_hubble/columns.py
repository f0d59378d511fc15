"""A flow as columns: the one dtype of rows in the ring, in filters and in metrics.

A row is a record of the data path (ciliate.model.event.EVENT, same fields at the same offsets), brought into Hubble's
terms in place, and what it was joined with. These fields of EVENT mean something else here:

- `time`: nanoseconds since the epoch;
- `kind`: Hubble's event type (EventType);
- `point`: the event type's sub type; of kind SOCK the translation point;
- `direction`: flow.TrafficDirection, seen from the local endpoint of the connection;
- `rule_set_egress`, `rule_set_ingress`: also the rule set of a default; of a policy verdict only its own direction's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np
from ciliate.model.event import EVENT
from numpy.typing import NDArray

Flows = NDArray[Any]
"""Rows of FLOW, shape (n,)."""
Sink = Callable[[Flows], None]
"""Gets every flow, a batch at a time, as rows that it must neither change nor keep: they are overwritten later."""


class EventType(enum.IntEnum):
    """FLOW.kind: Hubble's numbers, which for the data path's records are those of EventKind."""

    DROP = 1
    TRACE = 4
    POLICY_VERDICT = 5
    SOCK = 7
    L7 = 129


class Verdict(enum.IntEnum):
    """FLOW.verdict: flow.Verdict."""

    UNKNOWN = 0
    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4
    REDIRECTED = 5
    TRACED = 6
    TRANSLATED = 7


class TrafficDirection(enum.IntEnum):
    """FLOW.direction: flow.TrafficDirection."""

    UNKNOWN = 0
    INGRESS = 1
    EGRESS = 2


class Reply(enum.IntEnum):
    """FLOW.reply: flow.Flow.is_reply, which may be absent."""

    ABSENT = 0
    NO = 1
    YES = 2


_JOINED: list[tuple[str, str]] = [
    ("sequence", "<u8"),  # counts flows since this process's start; part of the flow's uuid
    ("source_end", "<u4"),  # index into the table of ends (ends.py): identity, labels, pod, workloads as they were
    ("destination_end", "<u4"),
    ("l7", "<u4"),  # number of the L7 record (l7.py); 0: none
    ("verdict", "u1"),  # Verdict
    ("reply", "u1"),  # Reply
    ("family", "u1"),  # 4, 6; 0: no IP
    ("match", "u1"),  # of a policy verdict: MatchType; else 0
]


def _flow_dtype() -> np.dtype[np.void]:
    names = list(EVENT.names or ())  # all of them, as numpy drops bytes between fields when it joins arrays
    formats: list[Any] = [EVENT[name] for name in names]
    offsets = [EVENT.fields[name][1] for name in names]  # type: ignore[index]  # a structured dtype has fields
    end = EVENT.itemsize
    for name, text in _JOINED:
        names.append(name)
        formats.append(np.dtype(text))
        offsets.append(end)
        end += np.dtype(text).itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end})


FLOW = _flow_dtype()
"""192 bytes: three cache lines."""
RAW = np.dtype((np.void, FLOW.itemsize))
"""A row as bytes: numpy would copy a struct field by field."""


def selected(flows: Flows, rows: NDArray[np.intp]) -> Flows:
    """A copy of some rows."""
    return flows.view(RAW)[rows].view(FLOW)
