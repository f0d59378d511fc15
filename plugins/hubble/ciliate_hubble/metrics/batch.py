"""A batch of flows with what several metrics want to know of it, each made once and only if somebody asks."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from ciliate.model.event import Point
from numpy.typing import NDArray

from ciliate_hubble.columns import EventType, Flows, TrafficDirection, Verdict
from ciliate_hubble.metrics.keys import Keys, mixed
from ciliate_hubble.tables import FlowTables

PROTOCOLS = ("Unknown", "TCP", "UDP", "ICMPv4", "ICMPv6", "SCTP", "VRRP", "IGMP", "DNS", "HTTP")
"""What is shown as protocol, by class."""
DNS, HTTP = PROTOCOLS.index("DNS"), PROTOCOLS.index("HTTP")
_CLASS_OF = np.zeros(256, np.uint8)
for _number, _name in (
    (6, "TCP"),
    (17, "UDP"),
    (1, "ICMPv4"),
    (58, "ICMPv6"),
    (132, "SCTP"),
    (112, "VRRP"),
    (2, "IGMP"),
):
    _CLASS_OF[_number] = PROTOCOLS.index(_name)
POINTS = tuple(point.name.lower().replace("_", "-") for point in Point)
"""Observation points, by number."""
FORWARDED = np.zeros(8, np.bool_)
FORWARDED[[Verdict.FORWARDED, Verdict.REDIRECTED]] = True

Rows = NDArray[np.intp]
Bytes = NDArray[np.uint8]


class Batch:
    """Columns of some flows, contiguous, of the rows' length."""

    def __init__(self, flows: Flows, tables: FlowTables) -> None:
        self.flows = flows
        self.tables = tables
        self._keys: dict[tuple[str, ...], Keys] = {}

    @cached_property
    def kind(self) -> Bytes:
        """EventType."""
        return np.ascontiguousarray(self.flows["kind"])

    @cached_property
    def verdict(self) -> Bytes:
        """Verdict."""
        return np.ascontiguousarray(self.flows["verdict"])

    @cached_property
    def direction(self) -> Bytes:
        """TrafficDirection."""
        return np.ascontiguousarray(self.flows["direction"])

    @cached_property
    def forwarded(self) -> NDArray[np.bool_]:
        """Whether the flow was let through, by a proxy or not."""
        forwarded: NDArray[np.bool_] = FORWARDED[self.verdict]
        return forwarded

    @cached_property
    def protocol(self) -> Bytes:
        """Place in PROTOCOLS."""
        classes: Bytes = _CLASS_OF[self.flows["protocol"]]
        for row in self.l7.tolist():
            entry = self.tables.l7.get(int(self.flows["l7"][row]))
            if entry is not None and (entry.record.dns is not None or entry.record.http is not None):
                classes[row] = DNS if entry.record.dns is not None else HTTP
        return classes

    @cached_property
    def l7(self) -> Rows:
        """Rows that tell of a request or an answer."""
        return np.flatnonzero(self.kind == EventType.L7)

    @cached_property
    def packets(self) -> NDArray[np.bool_]:
        """Whether a row tells of a packet: neither of a request nor of a socket."""
        kind = self.kind
        packets: NDArray[np.bool_] = (kind != EventType.L7) & (kind != EventType.SOCK)
        return packets

    def key_of(self, columns: tuple[str, ...]) -> Keys:
        """A key of some columns of each row; metrics with the same labels share it."""
        key = self._keys.get(columns)
        if key is None:
            key = np.zeros(len(self.flows), np.uint64)
            for name in columns:
                column = np.ascontiguousarray(self.flows[name])
                halves = column.view(np.uint64).T if column.ndim == 2 else (column,)
                for half in halves:
                    key = mixed(key, half)
            self._keys[columns] = key
        return key


def direction_text(number: int) -> str:
    """A direction as a label's value."""
    return TrafficDirection(number).name.lower()
