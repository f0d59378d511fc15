"""A map becomes equal to a desired state, and only what differs is touched."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ciliate.kernel.errors import KernelError
from ciliate.maps.map import Map
from ciliate.maps.registry import MapRegistry
from ciliate.maps.spec import MapFlag, MapKind, MapSpec
from ciliate.reconciler import IncompleteSourceError, MapReconciler, Reconciled

from tests.bpf.core.conftest import DECLARED, INDEX, PAIR, PREFIX

SLOTS = MapSpec("slots", MapKind.ARRAY, INDEX, PAIR, 16, "Slots.", MapFlag.MMAPABLE)


def made(registry: MapRegistry, spec: MapSpec) -> Map:
    registry.declare(spec, "test")
    registry.create()
    return registry.open(spec.name, writable=True)


def key(number: int) -> tuple[int, bytes]:
    return (128, number.to_bytes(16, "big"))


def value(number: int) -> tuple[int, int, int]:
    return (number, 80, 0)


def content(target: Map) -> dict[int, int]:
    keys, values = target.items()
    numbers = [int.from_bytes(one["address"].tobytes(), "big") for one in keys]
    return dict(zip(numbers, values["identity"].tolist(), strict=True))


def test_only_what_differs_is_touched(registry: MapRegistry) -> None:
    target = made(registry, DECLARED)
    reconciler = MapReconciler(target)
    assert reconciler.reconcile({key(n): value(n) for n in range(5)}, complete=True) == Reconciled(added=5)
    desired = {key(1): value(1), key(2): value(22), key(7): value(7)}
    assert reconciler.reconcile(desired, complete=True) == Reconciled(added=1, changed=1, removed=3, unchanged=1)
    assert content(target) == {1: 1, 2: 22, 7: 7}
    assert reconciler.reconcile(desired, complete=True) == Reconciled(unchanged=3)
    assert reconciler.reconcile({}, complete=True) == Reconciled(removed=3)
    assert content(target) == {}


def test_an_incomplete_source_deletes_nothing(registry: MapRegistry) -> None:
    target = made(registry, DECLARED)
    reconciler = MapReconciler(target)
    reconciler.reconcile({key(1): value(1), key(2): value(2)}, complete=True)
    assert reconciler.reconcile({key(2): value(3)}, complete=False) == Reconciled(changed=1, kept=1)
    assert content(target) == {1: 1, 2: 3}
    with pytest.raises(IncompleteSourceError, match="map declared is not pruned"):
        reconciler.prune([key(2)], complete=False)
    assert reconciler.prune([key(2)], complete=True) == 1
    assert reconciler.prune([key(2)], complete=True) == 0
    assert content(target) == {2: 3}


def test_single_operations_may_be_repeated(registry: MapRegistry) -> None:
    target = made(registry, DECLARED)
    reconciler = MapReconciler(target)
    reconciler.update(key(1), value(1))
    reconciler.update(key(1), value(1))
    assert content(target) == {1: 1}
    assert (reconciler.delete(key(1)), reconciler.delete(key(1))) == (True, False)


def test_of_equal_keys_the_last_value_counts(registry: MapRegistry) -> None:
    target = made(registry, DECLARED)
    keys, values = np.zeros(3, PREFIX), np.zeros(3, PAIR)
    keys["prefixlen"] = 128
    keys["address"][1, 15] = 1
    values["identity"] = [1, 2, 3]
    assert MapReconciler(target).reconcile((keys, values), complete=True) == Reconciled(added=2)
    assert content(target) == {0: 3, 1: 2}


def test_keys_that_end_in_zeros_are_told_apart(registry: MapRegistry) -> None:
    target = made(registry, DECLARED)
    desired = {(length, b"\x0a" + bytes(15)): value(length) for length in (8, 16, 24)}
    MapReconciler(target).reconcile(desired, complete=True)
    assert MapReconciler(target).reconcile(desired, complete=True) == Reconciled(unchanged=3)
    assert target.count() == 3


def test_a_full_map_makes_room_before_it_is_filled(registry: MapRegistry) -> None:
    target = made(registry, dataclasses.replace(DECLARED, max_entries=4))
    reconciler = MapReconciler(target)
    reconciler.reconcile({key(n): value(n) for n in range(4)}, complete=True)
    assert reconciler.reconcile({key(n): value(n) for n in range(3, 7)}, complete=True) == Reconciled(
        added=3, removed=3, unchanged=1
    )
    with pytest.raises(KernelError, match="map declared"):
        reconciler.reconcile({key(n): value(n) for n in range(10)}, complete=True)
    reconciler.reconcile({key(n): value(n) for n in range(4)}, complete=True)
    assert content(target) == {n: n for n in range(4)}


def test_an_arrays_entry_is_deleted_by_zeros(registry: MapRegistry) -> None:
    slots = made(registry, SLOTS)
    reconciler = MapReconciler(slots)
    assert reconciler.reconcile({3: value(3), 5: value(5)}, complete=True) == Reconciled(added=2)
    assert reconciler.reconcile({5: value(6)}, complete=True) == Reconciled(changed=1, removed=1)
    assert slots.items()[1]["identity"].tolist() == [0] * 5 + [6] + [0] * 10
    assert (reconciler.delete(5), reconciler.delete(5)) == (True, False)
    assert reconciler.prune([], complete=True) == 0


def test_a_hundred_thousand_entries_are_compared_and_left_alone(registry: MapRegistry) -> None:
    target = made(registry, dataclasses.replace(DECLARED, max_entries=100_000))
    keys, values = np.zeros(100_000, PREFIX), np.zeros(100_000, PAIR)
    keys["prefixlen"] = 128
    keys["address"][:, 12:] = np.arange(100_000, dtype=">u4").view("u1").reshape(-1, 4)
    values["identity"] = np.arange(100_000)
    reconciler = MapReconciler(target)
    assert reconciler.reconcile((keys, values), complete=True) == Reconciled(added=100_000)
    values["identity"][77] = 1
    assert reconciler.reconcile((keys, values), complete=True) == Reconciled(changed=1, unchanged=99_999)
