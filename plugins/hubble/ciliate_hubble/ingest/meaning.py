"""What a record means in Hubble's terms: the one function that says it, and its table for whole columns.

A record of kind VERDICT is a policy verdict in each direction in which the packet was judged: two flows, if in both. A
packet that policy denied is a denied policy verdict, and a drop.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from ciliate.model.event import EventKind, EventVerdict, Point
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from numpy.typing import NDArray

from ciliate_hubble.columns import EventType, Reply, TrafficDirection, Verdict

DENIALS = frozenset({DropReason.POLICY_DENIED, DropReason.POLICY_DENY, DropReason.AUTH_REQUIRED})
"""Reasons of drops by which a policy speaks."""
UNKNOWN_DIRECTION = 2
"""EVENT.direction of a drop that happened before any policy."""

EGRESS, INGRESS = 1, 2
"""Bits of `Meaning.rules`; also of EVENT.verdicts."""


class Case(NamedTuple):
    """What the meaning of a flow depends on."""

    kind: int  # EventKind; others mean nothing
    denied: bool  # a drop for a reason in DENIALS, in a known direction
    egress: bool  # judged
    ingress: bool  # judged
    reply: bool
    direction: int  # of a drop
    near: bool  # of a drop: a pod sent the packet; of a trace: it goes to a pod of this node
    proxied: bool
    second: bool  # the second flow of its record


class Meaning(NamedTuple):
    """A flow in Hubble's terms."""

    kind: EventType
    verdict: Verdict
    direction: TrafficDirection
    reply: Reply
    match: int  # whose match type it shows: EGRESS, INGRESS or 0
    rules: int  # whose rule sets it shows: bits EGRESS and INGRESS


def meaning(case: Case) -> Meaning:
    """Of one flow."""
    if case.kind == EventKind.DROP:
        return _denial(case) if case.denied and not case.second else _drop(case)
    if case.kind == EventKind.VERDICT and (case.egress or case.ingress):
        return _policy_verdict(case)
    if case.kind == EventKind.SOCK:
        return Meaning(EventType.SOCK, Verdict.TRACED, TrafficDirection.UNKNOWN, Reply.ABSENT, 0, 0)
    return _trace(case)


def flows_of(case: Case) -> int:
    """How many flows a record is: 1 or 2."""
    return 2 if case.denied or (case.kind == EventKind.VERDICT and case.egress and case.ingress) else 1


def _denial(case: Case) -> Meaning:
    egress = case.direction == Direction.EGRESS
    direction = TrafficDirection.EGRESS if egress else TrafficDirection.INGRESS
    bit = EGRESS if egress else INGRESS
    return Meaning(EventType.POLICY_VERDICT, Verdict.DROPPED, direction, Reply.ABSENT, bit, bit)


def _drop(case: Case) -> Meaning:
    if case.direction == Direction.EGRESS:
        direction = TrafficDirection.EGRESS
    elif case.direction == Direction.INGRESS:
        direction = TrafficDirection.INGRESS
    else:
        direction = TrafficDirection.EGRESS if case.near else TrafficDirection.UNKNOWN
    rules = EGRESS * case.egress | INGRESS * case.ingress
    return Meaning(EventType.DROP, Verdict.DROPPED, direction, Reply.ABSENT, 0, rules)


def _policy_verdict(case: Case) -> Meaning:
    """Of the egress first. A proxy is behind the last verdict only."""
    egress = case.egress and not case.second
    proxied = case.proxied and not (egress and case.ingress)
    direction = TrafficDirection.EGRESS if egress else TrafficDirection.INGRESS
    bit = EGRESS if egress else INGRESS
    verdict = Verdict.REDIRECTED if proxied else Verdict.FORWARDED
    return Meaning(EventType.POLICY_VERDICT, verdict, direction, Reply.NO, bit, bit)


def _trace(case: Case) -> Meaning:
    """Seen at the destination if that is a pod of this node, else at the source; a reply has its flow's direction."""
    direction = TrafficDirection.INGRESS if case.near != case.reply else TrafficDirection.EGRESS
    rules = EGRESS * case.egress | INGRESS * case.ingress
    reply = Reply.YES if case.reply else Reply.NO
    return Meaning(EventType.TRACE, Verdict.FORWARDED, direction, reply, 0, rules)


_KINDS = (0, EventKind.DROP, EventKind.TRACE, EventKind.VERDICT, EventKind.SOCK)
_SECOND, _PROXIED, _NEAR, _DIRECTION, _JUDGED, _REPLY, _DENIED, _KIND = 0, 1, 2, 3, 5, 7, 8, 9
_DROP = int(EventKind.DROP)
_CODES = len(_KINDS) << _KIND

_KIND_CODES = np.zeros(256, np.uint16)
_KIND_CODES[list(_KINDS)] = np.arange(len(_KINDS), dtype=np.uint16) << _KIND
_JUDGED_CODES = np.array([(v & 3) << _JUDGED | bool(v & EventVerdict.REPLY) << _REPLY for v in range(256)], np.uint16)
_DENIAL_CODES = np.zeros(256 << 2, np.uint16)  # by reason, and direction up to 3
for _reason in DENIALS:
    _DENIAL_CODES[(_reason << 2) + Direction.INGRESS] = _DENIAL_CODES[(_reason << 2) + Direction.EGRESS] = 1 << _DENIED
_NEAR_CODES = np.zeros(256 << 4, np.uint16)  # by kind, and point up to 15
_NEAR_CODES[Point.TO_ENDPOINT :: 16] = 1 << _NEAR
_NEAR_CODES[EventKind.DROP << 4 | Point.TO_ENDPOINT] = 0
_NEAR_CODES[EventKind.DROP << 4 | Point.FROM_ENDPOINT] = 1 << _NEAR


def _case(code: int) -> Case:
    return Case(
        kind=int(_KINDS[code >> _KIND]),
        denied=bool(code >> _DENIED & 1),
        egress=bool(code >> _JUDGED & 1),
        ingress=bool(code >> _JUDGED & 2),
        reply=bool(code >> _REPLY & 1),
        direction=code >> _DIRECTION & 3,
        near=bool(code >> _NEAR & 1),
        proxied=bool(code >> _PROXIED & 1),
        second=bool(code >> _SECOND & 1),
    )


class Meanings(NamedTuple):
    """`meaning` and `flows_of` of every case, by its code: a column an array."""

    kind: NDArray[np.uint8]
    verdict: NDArray[np.uint8]
    direction: NDArray[np.uint8]
    reply: NDArray[np.uint8]
    match: NDArray[np.uint8]
    rules: NDArray[np.uint8]
    double: NDArray[np.bool_]


@cache
def meanings() -> Meanings:
    """Made once: 3 ms."""
    cases = [_case(code) for code in range(_CODES)]
    kind, verdict, direction, reply, match, rules = np.array([meaning(case) for case in cases], np.uint8).T.copy()
    double = np.array([flows_of(case) == 2 for case in cases])
    return Meanings(kind, verdict, direction, reply, match, rules, double)


def codes_of(records: NDArray[Any]) -> NDArray[np.intp]:
    """The code of the case of each record's first flow; that of its second is this, plus 1. Shape (n,)."""
    kind = records["kind"].astype(np.intp)
    direction = np.minimum(records["direction"], 3).astype(np.intp)
    codes: NDArray[np.intp] = direction << _DIRECTION
    codes |= _KIND_CODES[kind]
    codes |= _JUDGED_CODES[records["verdicts"]]
    codes |= _NEAR_CODES[kind << 4 | np.minimum(records["point"], 15)]
    codes |= (records["proxy_port"] != 0).astype(np.intp) << _PROXIED
    drops = kind == _DROP
    if drops.any():
        codes |= np.where(drops, _DENIAL_CODES[records["reason"].astype(np.intp) << 2 | direction], 0)
    return codes
