"""Counters: every way of bumping changes the number, and programs would see it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from ciliate.counters import Counters
from ciliate.maps.registry import MapRegistry

from tests.bpf.core.conftest import COUNTERS, DECLARED


@pytest.fixture
def counters(registry: MapRegistry) -> Counters:
    registry.declare(COUNTERS, "policy")
    registry.declare(DECLARED, "policy")
    registry.create()
    return Counters(registry.open("counters", writable=True))


def test_a_bump_is_seen_through_the_map(counters: Counters, registry: MapRegistry) -> None:
    counters.bump(3)
    counters.bump(3)
    assert (counters.read(3), registry.open("counters").lookup(3), counters.read(2), counters.read(4)) == (2, 2, 0, 0)


def test_several_and_all_are_bumped(counters: Counters) -> None:
    counters.bump_many(np.array([0, 65535, 7, 7]))
    counters.bump_many([])
    counters.bump_all()
    numbers = counters.read_all()
    assert numbers[[0, 7, 65535]].tolist() == [2, 2, 2]
    assert numbers.sum() == 65536 + 3


def test_a_counter_goes_round_silently(counters: Counters, registry: MapRegistry) -> None:
    full = 0xFFFFFFFF
    registry.open("counters").update(1, full)
    counters.bump(1)
    assert counters.read(1) == 0
    registry.open("counters").update(1, full)
    counters.bump_many([1])
    assert counters.read(1) == 0
    registry.open("counters").update(1, full)
    counters.bump_all()
    assert counters.read(1) == 0


def test_what_is_out_of_range_is_refused_whole(counters: Counters) -> None:
    for wrong in (-1, 65536):
        with pytest.raises(IndexError, match="map counters has counters 0 to 65535"):
            counters.bump(wrong)
        with pytest.raises(IndexError, match="map counters has counters 0 to 65535"):
            counters.bump_many([5, wrong])
    assert counters.read(5) == 0


def test_threads_lose_no_bump(counters: Counters) -> None:
    def bump() -> None:
        for _ in range(2000):
            counters.bump(9)

    threads = [threading.Thread(target=bump) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.read(9) == 8000


def test_only_u32_arrays_hold_counters(counters: Counters, registry: MapRegistry) -> None:
    with pytest.raises(TypeError, match="map declared holds no counters"):
        Counters(registry.open("declared", writable=True))
