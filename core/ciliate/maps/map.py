"""One open map, typed by its spec."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciliate.kernel import attributes as attr
from ciliate.kernel import syscall
from ciliate.kernel.attributes import Command
from ciliate.kernel.errors import KernelError
from ciliate.maps import batch
from ciliate.maps.elements import POSSIBLE_CPUS, Element, encode, encode_many, round_up_8
from ciliate.maps.spec import MapFlag, MapKind, MapSpec

_PER_CPU = {MapKind.PERCPU_HASH, MapKind.PERCPU_ARRAY}
_ARRAYS = {MapKind.ARRAY, MapKind.PERCPU_ARRAY}


class MapReadOnlyError(PermissionError):
    """A write to a map that this process has opened for reading: another owns it."""


class Map:
    """A BPF map. Keys and values are given as `elements.Element` and come back in the spec's dtypes.

    A value is one numpy scalar; in a per-CPU map it is an array of shape (cpus,). Errors of the kernel are
    KernelErrors that name the map. Single operations take about 5 µs and never wait; batches let other threads run.
    """

    def __init__(self, spec: MapSpec, fd: int, writable: bool = True) -> None:
        self.spec = spec
        self.fd = fd
        self.writable = writable
        self.per_cpu = spec.kind in _PER_CPU
        step = round_up_8(spec.value.itemsize)
        self._value_size = step * POSSIBLE_CPUS if self.per_cpu else spec.value.itemsize
        self._value_step = step
        self._key_buffer = ctypes.c_char * spec.key.itemsize
        self._value_buffer = ctypes.c_char * self._value_size

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.spec.name

    def lookup(self, key: Element) -> Any | None:
        """The value of a key, or None. Of an LPM map: of the longest prefix that holds the key's."""
        raw_key = self._key_buffer.from_buffer_copy(encode(key, self.spec.key, f"key of map {self.name}"))
        raw = self._value_buffer()
        request = attr.Element(self.fd, 0, ctypes.addressof(raw_key), ctypes.addressof(raw))
        result = syscall.call_quick(Command.MAP_LOOKUP_ELEM, request)
        if result == -errno.ENOENT:
            return None
        self._check(result, "looking up")
        if self.per_cpu:
            return self._split_cpus(np.frombuffer(memoryview(raw), np.uint8).reshape(1, -1))[0]
        return np.frombuffer(memoryview(raw), self.spec.value, 1)[0]

    def update(self, key: Element, value: Element, flags: int = syscall.ANY) -> None:
        """Write one entry (flags: ANY, NO_EXIST or EXIST of `ciliate.kernel.syscall`).

        Per-CPU: an array of shape (cpus,), or one value for all.
        """
        self._check_writable()
        raw_key = self._key_buffer.from_buffer_copy(encode(key, self.spec.key, f"key of map {self.name}"))
        raw = self._value_buffer.from_buffer_copy(self._encode_value(value))
        request = attr.Element(self.fd, 0, ctypes.addressof(raw_key), ctypes.addressof(raw), flags)
        self._check(syscall.call_quick(Command.MAP_UPDATE_ELEM, request), "writing")

    def delete(self, key: Element) -> bool:
        """Delete one entry; whether there was one. Entries of arrays can't be deleted: write zeros."""
        self._check_writable()
        raw_key = self._key_buffer.from_buffer_copy(encode(key, self.spec.key, f"key of map {self.name}"))
        request = attr.Element(self.fd, 0, ctypes.addressof(raw_key))
        result = syscall.call_quick(Command.MAP_DELETE_ELEM, request)
        if result == -errno.ENOENT:
            return False
        self._check(result, "deleting from")
        return True

    def items(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """All entries: keys (n,) and values (n,), per-CPU (n, cpus); an array's entries are all of them, zeros too.

        Not a snapshot: an entry that is changed meanwhile may be missing or be there twice.
        """
        spec = self.spec
        keys, values = batch.read_all(self.fd, self.name, spec.key.itemsize, self._value_size, spec.max_entries)
        typed_keys = np.frombuffer(keys.tobytes(), spec.key)
        if self.per_cpu:
            return typed_keys, self._split_cpus(values)
        return typed_keys, np.frombuffer(values.tobytes(), spec.value)

    def update_batch(
        self, keys: NDArray[Any] | Iterable[Element], values: NDArray[Any] | Iterable[Element], flags: int = syscall.ANY
    ) -> None:
        """Write n entries: keys (n,) and values (n,); not for per-CPU maps. Not atomic as a whole."""
        self._check_writable()
        if self.per_cpu:
            raise TypeError(f"map {self.name} is per-CPU: write its entries one by one")
        raw_keys = encode_many(keys, self.spec.key, f"keys of map {self.name}")
        raw_values = encode_many(values, self.spec.value, f"values of map {self.name}")
        if len(raw_keys) != len(raw_values):
            raise ValueError(f"map {self.name}: {len(raw_keys)} keys but {len(raw_values)} values")
        batch.write_all(self.fd, self.name, raw_keys, raw_values, flags)

    def delete_batch(self, keys: NDArray[Any] | Iterable[Element]) -> int:
        """Delete the entries of keys (n,); how many there were. Keys that are not there are passed over."""
        self._check_writable()
        return batch.delete_all(self.fd, self.name, encode_many(keys, self.spec.key, f"keys of map {self.name}"))

    def mmap(self, writable: bool = False) -> NDArray[Any]:
        """The values of an MMAPABLE array as memory, shape (max_entries,): loads and stores, no system call.

        A field of up to 8 aligned bytes is stored whole; nothing larger is. The array keeps the memory mapped.
        Values are multiples of 8 bytes apart, so the view has strides.
        """
        if self.spec.kind is not MapKind.ARRAY or not self.spec.flags & MapFlag.MMAPABLE:
            raise TypeError(f"map {self.name} can't be mapped into memory: declare it ARRAY with MapFlag.MMAPABLE")
        if writable:
            self._check_writable()
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        size = -(-self.spec.max_entries * self._value_step // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            memory = mmap.mmap(self.fd, size, mmap.MAP_SHARED, protection)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"mapping map {self.name} into memory") from error
        return np.ndarray((self.spec.max_entries,), self.spec.value, memory, 0, (self._value_step,))

    def count(self) -> int:
        """How many entries there are. Arrays are always full; other maps are read whole (1 µs an entry)."""
        return self.spec.max_entries if self.spec.kind in _ARRAYS else len(self.items()[0])

    def info(self) -> syscall.MapInfo:
        """What the kernel says of the map."""
        return syscall.map_info(self.fd)

    def close(self) -> None:
        """Let go of the map; mapped memory stays. Closing twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _encode_value(self, value: Element) -> bytes:
        what = f"value of map {self.name}"
        if not self.per_cpu:
            return encode(value, self.spec.value, what)
        spread = np.zeros((POSSIBLE_CPUS, self._value_step), np.uint8)
        many = isinstance(value, np.ndarray) and value.ndim == 1
        raw = encode_many(value, self.spec.value, what).tobytes() if many else encode(value, self.spec.value, what)
        spread[:, : self.spec.value.itemsize] = np.frombuffer(memoryview(raw), np.uint8).reshape(
            -1, self.spec.value.itemsize
        )
        return spread.tobytes()

    def _split_cpus(self, raw: NDArray[np.uint8]) -> NDArray[Any]:
        """(n, cpus) values of (n, value_size) bytes."""
        apart = raw.reshape(len(raw), POSSIBLE_CPUS, self._value_step)[:, :, : self.spec.value.itemsize]
        return np.ascontiguousarray(apart).view(self.spec.value)[:, :, 0]

    def _check_writable(self) -> None:
        if not self.writable:
            raise MapReadOnlyError(f"map {self.name} is open for reading only: its owner writes it")

    def _check(self, result: int, verb: str) -> None:
        if result < 0:
            raise KernelError(-result, f"{verb} map {self.name}", self._too_big() if result == -errno.E2BIG else "")

    def _too_big(self) -> str:
        if self.spec.kind in _ARRAYS:
            return f"its keys are 0 to {self.spec.max_entries - 1}"
        return f"all {self.spec.max_entries} entries are taken: configure the map larger"
