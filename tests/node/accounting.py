"""What became of every packet: pure functions over the records of tests.node.traffic."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PACKET = np.dtype(
    [
        ("sender", "<u2"),
        ("flow", "<u2"),
        ("number", "<u4"),  # from 0, of the flow
        ("begun", "<u8"),  # ns, CLOCK_MONOTONIC: just before the call that sent it
        ("ended", "<u8"),  # sent: when that call had returned, 0 if it failed; received: when it was read
    ]
)
"""A packet as its sender or its receiver recorded it (`struct record` of traffic.c)."""

CONNECTION = np.dtype([("target", "<u4"), ("outcome", "<u2"), ("error", "<u2"), ("begun", "<u8"), ("ended", "<u8")])
"""A connection: target t is address t % addresses, port `port + t // addresses`; error is an errno."""

Records = npt.NDArray[np.void]
Flags = npt.NDArray[np.bool_]


class Outcome(enum.IntEnum):
    """How a connection ended."""

    ANSWERED = 1
    REFUSED = 2
    TIMED_OUT = 3
    UNSENT = 4


@dataclass(frozen=True)
class FlowAccount:
    """One flow's packets. Every packet is sent, failed or neither; a sent one is received or lost."""

    sender: int
    flow: int
    sent: int
    failed: int  # the call that sends said no
    received: int
    lost: int
    duplicated: int
    late: int  # received, but later than the limit
    longest_gap_ms: float  # between the first and the last packet lost in a row, by their times of sending


def keys(records: Records) -> npt.NDArray[np.uint64]:
    """One number for each packet: sender, flow and number."""
    flow = records["sender"].astype(np.uint64) << np.uint64(16) | records["flow"].astype(np.uint64)
    return np.asarray(flow << np.uint64(32) | records["number"].astype(np.uint64))


def delivered(sent: Records, received: Records) -> Flags:
    """For each sent packet, whether it was received."""
    return np.isin(keys(sent), keys(received))


def _longest_gap(begun: npt.NDArray[np.uint64], lost: Flags) -> float:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2] - 1
    return float((begun[ends] - begun[starts]).max() / 1e6) if len(starts) else 0.0


def account(sent: Records, received: Records, late_ms: float = 100) -> list[FlowAccount]:
    """One account a flow, by sender and flow. Raises ValueError if something was received that was never sent."""
    strangers = ~np.isin(keys(received), keys(sent))
    if strangers.any():
        raise ValueError(f"{strangers.sum()} packets were received that nobody sent, as {received[strangers][0]}")
    here = delivered(sent, received)
    accounts = []
    for pair in np.unique(sent[["sender", "flow"]]):
        mine = (sent["sender"] == pair["sender"]) & (sent["flow"] == pair["flow"])
        theirs = received[(received["sender"] == pair["sender"]) & (received["flow"] == pair["flow"])]
        ok = sent["ended"][mine] != 0
        lost = ok & ~here[mine]
        distinct = len(np.unique(theirs["number"]))
        accounts.append(
            FlowAccount(
                int(pair["sender"]), int(pair["flow"]), int(ok.sum()), int((~ok).sum()), distinct, int(lost.sum()),
                len(theirs) - distinct, int((theirs["ended"] - theirs["begun"] > late_ms * 1e6).sum()),
                _longest_gap(sent["begun"][mine], lost),
            )
        )  # fmt: skip
    return accounts


def between(records: Records, since: int, until: int) -> Records:
    """The records whose packet or connection began in [since, until), ns."""
    chosen: Records = records[(records["begun"] >= since) & (records["begun"] < until)]
    return chosen


def wrong_connections(connections: Records, allowed: npt.ArrayLike) -> Records:
    """Connections whose outcome is not what policy says. `allowed[t]`: whether target t may be reached.

    A denied connection must time out: a drop is silent. An allowed one must be answered.
    """
    may = np.asarray(allowed, bool)[connections["target"]]
    wrong: Records = connections[connections["outcome"] != np.where(may, Outcome.ANSWERED, Outcome.TIMED_OUT)]
    return wrong
