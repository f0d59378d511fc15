"""How many flows a pod may have, given how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ciliate.model.conntrack import CONNTRACK_ENTRY, ENDPOINT_FLOWS_ENTRY
from ciliate.model.endpoint import ENDPOINT_ENTRY, ENDPOINT_VALID, ENDPOINTS_MAX
from ciliate_cni.conntrack import orphaned
from ciliate_cni.flowlimits import FlowLimits, charged, corrections, limit_for
from hypothesis import given
from hypothesis import strategies as st

ENTRIES = 524_288


def test_one_pod_alone_gets_its_share() -> None:
    assert limit_for(0.5, ENTRIES, 0) == ENTRIES // 2
    assert limit_for(0.5, ENTRIES, ENTRIES // 2) == ENTRIES // 2
    assert limit_for(0.25, ENTRIES, ENTRIES // 4) == ENTRIES // 4
    assert limit_for(1, ENTRIES, ENTRIES) == 0, "no limit"


@given(share=st.floats(0.01, 0.99), greedy=st.integers(1, 20), modest=st.integers(0, 500))
def test_whatever_pods_want_there_is_as_much_left(share: float, greedy: int, modest: int) -> None:
    """Greedy pods take all that they may, flow by flow; modest is what all others have together."""
    have = 0
    while have < limit_for(share, 1000, modest + greedy * have):
        have += 1
    left = 1000 - modest - greedy * have
    assert left >= have - greedy
    assert have <= max(1, share * 1000)


@pytest.mark.parametrize("greedy", [1, 2, 5])
def test_those_that_want_much_share_what_is_free(greedy: int) -> None:
    each = ENTRIES // (greedy + 1)
    assert abs(limit_for(0.5, ENTRIES, greedy * each) - each) <= greedy + 1


def slots(*flows: int) -> Any:
    made = np.zeros(ENDPOINTS_MAX, ENDPOINT_FLOWS_ENTRY)
    made["flows"][1 : 1 + len(flows)] = flows
    return made


def test_a_pod_that_comes_to_its_limit_is_told_of_once() -> None:
    memory = slots(3, 60, -5)
    limits = FlowLimits(memory, 100, 0.5)
    assert not limits.pressed, "no limit is set yet"
    assert limits.update() == [2]
    assert limits.of(2) == (60, 37) and limits.of(3) == (0, 37)
    assert limits.pressed
    memory["flows"][2] = 49
    assert limits.update() == []
    memory["flows"][2] = 30
    assert limits.update() == []
    memory["flows"][2] = 60
    assert limits.update() == [2]
    memory["flows"][2] = 3
    limits.update()
    assert not limits.pressed


def test_an_entry_counts_for_its_origin_or_else_for_the_other_end() -> None:
    entries = np.zeros(5, CONNTRACK_ENTRY)
    entries["endpoint"] = [(1, 2), (1, 2), (0, 2), (0, 2), (3, 0)]
    entries["origin"] = [0, 1, 0, 1, 1]
    assert charged(entries)[:5].tolist() == [0, 1, 3, 1, 0]


def test_what_may_have_happened_while_the_table_was_read_is_not_corrected() -> None:
    before, after = np.array([10, 10, 10, 10, 10]), np.array([20, 20, 20, 20, 10])
    counted = np.array([10, 20, 9, 21, 10])
    assert corrections(before, counted, after).tolist() == [0, 0, -1, 1, 0]


def test_an_entry_is_orphaned_when_an_end_is_gone_or_another() -> None:
    endpoints = np.zeros(ENDPOINTS_MAX, ENDPOINT_ENTRY)
    endpoints["flags"][[1, 2]] = ENDPOINT_VALID
    endpoints["generation"][[1, 2, 3]] = (7, 8, 9)
    entries = np.zeros(5, CONNTRACK_ENTRY)
    entries["endpoint"] = [(1, 2), (1, 0), (0, 2), (1, 3), (1, 70_000)]
    entries["generation"] = [(7, 8), (7, 0), (0, 5), (7, 9), (7, 0)]
    assert orphaned(entries, endpoints).tolist() == [False, False, True, True, True]
