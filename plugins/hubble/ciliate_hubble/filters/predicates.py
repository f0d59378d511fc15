"""Masks over columns: what the fields' meanings are built of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciliate_hubble.columns import EventType, Flows
from ciliate_hubble.ends import End
from ciliate_hubble.l7 import L7Entry
from ciliate_hubble.tables import FlowTables

Mask = NDArray[np.bool_]
Predicate = Callable[[Flows], Mask]
"""Rows to which of them are wanted. Predicates of one filter are tried in order of what they cost."""


def nothing(flows: Flows) -> Mask:
    """No row."""
    return np.zeros(len(flows), np.bool_)


def everything(flows: Flows) -> Mask:
    """Every row."""
    return np.ones(len(flows), np.bool_)


def any_of(predicates: Iterable[Predicate]) -> Predicate:
    """Rows that one of them wants."""
    first, *others = predicates

    def mask(flows: Flows) -> Mask:
        wanted = first(flows)
        for other in others:
            wanted = wanted | other(flows)
        return wanted

    return mask


def among(column: str, numbers: Collection[int]) -> Predicate:
    """Rows whose column has one of some numbers. What a column can't hold, no row has."""
    wanted = sorted(set(numbers))

    def mask(flows: Flows) -> Mask:
        return isin(flows[column], wanted)

    return mask


def isin(values: NDArray[Any], wanted: Collection[int]) -> Mask:
    """Which of some numbers are wanted."""
    most = int(np.iinfo(values.dtype).max)
    numbers = [number for number in wanted if 0 <= number <= most]
    if len(numbers) > 8:
        return np.isin(values, np.array(numbers, values.dtype))
    found = np.zeros(len(values), np.bool_)
    for number in numbers:
        found |= values == number
    return found


class EndPredicate:
    """Rows one end of which passes a test; each end is tested once."""

    _NO, _YES, _UNTESTED = 0, 1, 2

    def __init__(self, side: str, tables: FlowTables, test: Callable[[End], bool]) -> None:
        self._column = f"{side}_end"
        self._ends = tables.ends
        self._test = test
        self._life = tables.ends.life
        self._states = np.full(1024, self._UNTESTED, np.uint8)

    def __call__(self, flows: Flows) -> Mask:
        rows = self._ends.rows
        if self._life != self._ends.life:
            self._life = self._ends.life
            self._states.fill(self._UNTESTED)
        if len(rows) > len(self._states):
            more = np.full(2 * len(rows) - len(self._states), self._UNTESTED, np.uint8)
            self._states = np.concatenate([self._states, more])
        indices = flows[self._column]
        states = self._states[indices]
        untested = states == self._UNTESTED
        if untested.any():
            for index in set(indices[untested].tolist()):
                self._states[index] = self._YES if self._test(rows[index]) else self._NO
            states = self._states[indices]
        found: Mask = states == self._YES
        return found


class L7Predicate:
    """Rows whose L7 record passes a test."""

    def __init__(self, tables: FlowTables, test: Callable[[L7Entry], bool]) -> None:
        self._entries = tables.l7
        self._test = test

    def __call__(self, flows: Flows) -> Mask:
        wanted = nothing(flows)
        for row in np.flatnonzero(flows["kind"] == EventType.L7).tolist():
            entry = self._entries.get(int(flows["l7"][row]))
            wanted[row] = entry is not None and self._test(entry)
        return wanted
