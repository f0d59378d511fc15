"""Maps of every kind through their typed operations."""

from __future__ import annotations

import numpy as np
import pytest
from ciliate.kernel import syscall
from ciliate.kernel.errors import KernelError
from ciliate.maps.elements import POSSIBLE_CPUS
from ciliate.maps.map import Map, MapReadOnlyError
from ciliate.maps.registry import MapRegistry
from ciliate.maps.spec import MapFlag, MapKind, MapSpec

from tests.bpf.core.conftest import COUNTERS, DECLARED, INDEX, PAIR, PREFIX

KINDS = {MapKind.HASH: MapFlag.NO_PREALLOC, MapKind.LRU_HASH: MapFlag.NONE, MapKind.LPM_TRIE: MapFlag.NO_PREALLOC}


def make(registry: MapRegistry, spec: MapSpec) -> Map:
    registry.declare(spec, "test")
    registry.create()
    return registry.open(spec.name, writable=True)


def keyed(registry: MapRegistry, kind: MapKind, entries: int = 70_000) -> Map:
    return make(registry, MapSpec("keyed", kind, PREFIX, PAIR, entries, "Keyed.", KINDS[kind]))


def many(count: int) -> tuple[np.ndarray, np.ndarray]:
    keys, values = np.zeros(count, PREFIX), np.zeros(count, PAIR)
    keys["prefixlen"] = 128
    keys["address"][:, :4] = np.arange(count, dtype=">u4").view("u1").reshape(-1, 4)
    values["identity"] = np.arange(count)
    return keys, values


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_an_entry_is_written_found_and_deleted(registry: MapRegistry, kind: MapKind) -> None:
    keyed_map = keyed(registry, kind)
    key = (128, b"\x20\x01" + bytes(14))
    assert keyed_map.lookup(key) is None
    keyed_map.update(key, (7, 80, 0))
    found = keyed_map.lookup(key)
    assert found is not None
    assert (found["identity"], found["port"]) == (7, 80)
    assert keyed_map.delete(key)
    assert not keyed_map.delete(key)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_many_entries_go_and_come_in_batches(registry: MapRegistry, kind: MapKind) -> None:
    keyed_map = keyed(registry, kind, 200_000)
    keys, values = many(50_000)
    keyed_map.update_batch(keys, values)
    got_keys, got_values = keyed_map.items()
    assert len(got_keys) == 50_000
    numbers = np.ascontiguousarray(got_keys["address"][:, :4]).view(">u4")[:, 0]
    assert np.array_equal(numbers, got_values["identity"])
    assert len(np.unique(numbers)) == 50_000
    assert keyed_map.delete_batch(keys[::2]) == 25_000
    assert keyed_map.delete_batch(keys[:10]) == 5
    assert keyed_map.count() == 24_995


def test_an_empty_map_has_typed_empty_items(registry: MapRegistry) -> None:
    keys, values = keyed(registry, MapKind.LPM_TRIE).items()
    assert (keys.shape, keys.dtype, values.shape, values.dtype) == ((0,), PREFIX, (0,), PAIR)


def test_a_full_hash_says_so(registry: MapRegistry) -> None:
    small = keyed(registry, MapKind.HASH, 4)
    keys, values = many(5)
    with pytest.raises(KernelError, match="5 entries to map keyed: 4 done"):
        small.update_batch(keys, values)
    with pytest.raises(KernelError, match="all 4 entries are taken"):
        small.update(keys[4], values[4])


def test_the_longest_prefix_is_found(registry: MapRegistry) -> None:
    prefixes = make(registry, DECLARED)
    prefixes.update((8, b"\x0a" + bytes(15)), (1, 0, 0))
    prefixes.update((16, b"\x0a\x01" + bytes(14)), (2, 0, 0))
    found = prefixes.lookup((128, b"\x0a\x01\x07" + bytes(13)))
    assert found is not None
    assert found["identity"] == 2


@pytest.mark.parametrize("kind", [MapKind.PERCPU_ARRAY, MapKind.PERCPU_HASH], ids=lambda kind: kind.name.lower())
def test_a_per_cpu_value_has_an_axis_of_cpus(registry: MapRegistry, kind: MapKind) -> None:
    small = np.dtype([("n", "<u4")])
    per_cpu = make(registry, MapSpec("percpu", kind, INDEX, small, 3, "Per CPU."))
    per_cpu.update(1, (7,))
    apart = np.array([(10 + cpu,) for cpu in range(POSSIBLE_CPUS)], small)
    per_cpu.update(2, apart)
    one = per_cpu.lookup(1)
    assert one is not None
    assert one["n"].tolist() == [7] * POSSIBLE_CPUS
    two = per_cpu.lookup(2)
    assert two is not None
    assert np.array_equal(two, apart)
    keys, values = per_cpu.items()
    assert values.shape == (len(keys), POSSIBLE_CPUS)
    assert np.array_equal(values[keys == 2][0], apart)


def test_mapped_memory_and_system_calls_see_each_other(registry: MapRegistry) -> None:
    counters = make(registry, COUNTERS)
    writable, readable = counters.mmap(writable=True), counters.mmap()
    writable[5] = 9
    assert counters.lookup(5) == 9
    counters.update(6, 11)
    assert readable[6] == 11
    with pytest.raises(ValueError, match="read-only"):
        readable[5] = 1


def test_only_mmapable_arrays_can_be_mapped(registry: MapRegistry) -> None:
    with pytest.raises(TypeError, match=r"declare it ARRAY with MapFlag\.MMAPABLE"):
        make(registry, DECLARED).mmap()


def test_a_reader_can_not_write(registry: MapRegistry) -> None:
    owned = make(registry, DECLARED)
    reader = MapRegistry(registry.root).open(DECLARED)
    owned.update((0, bytes(16)), (3, 0, 0))
    assert reader.count() == 1
    for write in (
        lambda: reader.update((0, bytes(16)), (1, 0, 0)),
        lambda: reader.delete((0, bytes(16))),
        lambda: reader.update_batch([], []),
        lambda: reader.delete_batch([]),
    ):
        with pytest.raises(MapReadOnlyError, match="map declared is open for reading only"):
            write()
    reader.writable = True  # even then: the kernel holds the line
    with pytest.raises(KernelError, match="writing map declared"):
        reader.update((0, bytes(16)), (1, 0, 0))
    reader.close()


def test_flags_forbid_overwriting_and_creating(registry: MapRegistry) -> None:
    keyed_map = keyed(registry, MapKind.HASH)
    key = (128, bytes(16))
    with pytest.raises(KernelError, match="No such file"):
        keyed_map.update(key, (1, 0, 0), syscall.EXIST)
    keyed_map.update(key, (1, 0, 0), syscall.NO_EXIST)
    with pytest.raises(KernelError, match="File exists"):
        keyed_map.update(key, (1, 0, 0), syscall.NO_EXIST)


def test_an_index_out_of_range_is_named(registry: MapRegistry) -> None:
    counters = make(registry, COUNTERS)
    assert counters.lookup(65536) is None
    with pytest.raises(KernelError, match="its keys are 0 to 65535"):
        counters.update(65536, 1)
