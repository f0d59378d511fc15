"""One rule changed again and again under traffic: was a packet judged by an old rule long after a report?

A rule that is only switched on and off would have to rest for longer than the limit after every change, or a packet let
through could be the next "on". Instead each change makes the rule name another of N flows (by port): state k is the
rule after change k, its exception is flow `k % N`. A flow that was named is then not named for N - 1 changes: whatever
happens to it in that time by the old rule is seen, though a change may come every 100 µs. Two modes:

    ALLOW_ONE   the rule allows the named flow and nothing else: a packet delivered by an old rule is wrong
    DENY_ONE    the rule denies the named flow and nothing else: a packet lost by an old rule is wrong

When a packet was judged is not known, but lies between two times that are: it was sent after `begun`, and judged before
it was read (or, lost, before `ended`, the return of the call that sent it, and SETTLING_NS more). The states that may
have judged it rightly are: the last one reported at least `grace` before it was sent, to the last one begun before it
was surely judged. A packet is wrong if none of them explains what became of it; so a finding is never an artefact of
the clock or of a slow reader.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.node.accounting import Records, delivered, keys

FLIP = np.dtype([("begun", "<u8"), ("reported", "<u8")])
"""Change k: when it was begun and when it was reported enforced (ns, CLOCK_MONOTONIC)."""

GRACE_NS = 1_000_000
SETTLING_NS = 2_000_000
FLOWS = 64
HOLD_NS = 100_000
"""FLOWS * HOLD_NS must be well above GRACE_NS + SETTLING_NS: the rest is the time in which a packet is decisive."""


class Mode(enum.Enum):
    """What the rule does with the flow it names."""

    ALLOW_ONE = "allow one"
    DENY_ONE = "deny one"


@dataclass(frozen=True)
class Judgement:
    """The verdict on a run. `worst_us`: how long after a report a packet was sent that the old rule still judged."""

    flips: int
    packets: int
    decisive: int  # sent when no state that could rightly judge them named their flow: these could be found wrong
    checked_flips: int  # changes after which at least one decisive packet was sent before its flow was named again
    wrong: Records
    worst_us: float

    def __str__(self) -> str:
        return (
            f"{self.flips} changes ({self.checked_flips} checked), {self.packets} packets ({self.decisive} decisive), "
            f"{len(self.wrong)} wrong, an old rule last seen {self.worst_us:.0f} µs after its successor was reported"
        )


def flip(apply: Callable[[int], None], count: int, hold_ns: int, first: int = 0) -> Records:
    """Call `apply(k)` for `count` changes from `first` on and note the times. `apply` returns when k is enforced.

    Each state is held for at least `hold_ns`, giving way to other processes but not sleeping: a sleep is too coarse.
    """
    flips = np.zeros(count, FLIP)
    for slot in range(count):
        begun = time.monotonic_ns()
        apply(first + slot)
        reported = time.monotonic_ns()
        flips[slot] = (begun, reported)
        while time.monotonic_ns() - reported < hold_ns:
            time.sleep(0)
    return flips


def _named_in(states_from: npt.NDArray[np.int64], states_to: npt.NDArray[np.int64], flows: npt.NDArray[np.int64],
              count: int, first: int) -> npt.NDArray[np.bool_]:  # fmt: skip
    """Whether any state of [from, to] (slots of flips) names the flow: arithmetic, as state k names k % count."""
    start = states_from + first
    next_named = start + (flows - start) % count
    return np.asarray(next_named <= states_to + first)


def judge(mode: Mode, flips: Records, sent: Records, received: Records, flows: int, first: int = 0,
          grace_ns: int = GRACE_NS) -> Judgement:  # fmt: skip
    """Judge every packet. `flows`: how many flows a sender has, and the rule's N; `first`: as in `flip`."""
    sent = sent[sent["ended"] != 0]
    there = delivered(sent, received)
    numbers = keys(received)
    order = np.argsort(numbers)
    places = np.searchsorted(numbers[order], keys(sent[there]))
    read = np.zeros(len(sent), np.uint64)
    read[there] = received["ended"][order][places]
    surely = np.where(there, read, sent["ended"] + np.uint64(SETTLING_NS))

    def slot_by(times: npt.NDArray[np.uint64], moments: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(times, moments, "right").astype(np.int64) - 1

    oldest = slot_by(flips["reported"], sent["begun"] - np.uint64(grace_ns))
    youngest = slot_by(flips["begun"], surely)
    settled = slot_by(flips["begun"], sent["ended"] + np.uint64(SETTLING_NS))
    flow = sent["flow"].astype(np.int64)
    known = oldest >= 0
    decisive = known & ~_named_in(oldest, settled, flow, flows, first)
    odd = known & (there if mode is Mode.ALLOW_ONE else ~there)
    wrong = odd & ~_named_in(oldest, youngest, flow, flows, first)
    return Judgement(
        len(flips),
        len(sent),
        int(decisive.sum()),
        len(np.unique(oldest[decisive])),
        sent[wrong],
        _worst_us(flips, sent[odd], youngest[odd], flows, first),
    )


def _worst_us(flips: Records, odd: Records, youngest: npt.NDArray[np.int64], flows: int, first: int) -> float:
    """Over packets treated as named: how long before they were sent the last state that named them had ended."""
    flow = odd["flow"].astype(np.int64)
    last_named = youngest - (youngest + first - flow) % flows
    has_next = (last_named >= 0) & (last_named + 1 < len(flips))
    replaced = flips["reported"][last_named[has_next] + 1].astype(np.int64)
    after = odd["begun"][has_next].astype(np.int64) - replaced
    return float(max(after.max(initial=0), 0) / 1000)
