"""Many elements in one system call; one by one where the kernel has no batch for a kind of map.

Arrays are contiguous. Sizes are those of the kernel: a per-CPU value is cpus times its size rounded up to 8 bytes.
An entry that somebody changes meanwhile may be missing, or be there twice.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciliate.kernel import attributes as attr
from ciliate.kernel import syscall
from ciliate.kernel.attributes import Command
from ciliate.kernel.errors import KernelError

_UNSUPPORTED = {errno.EINVAL, errno.EOPNOTSUPP, 524}  # 524: the kernel's own ENOTSUPP, which user space has no name for
_CHUNK = 16_384
Bytes = NDArray[np.uint8]


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def read_all(fd: int, name: str, key_size: int, value_size: int, max_entries: int) -> tuple[Bytes, Bytes]:
    """All entries: keys (n, key_size) and values (n, value_size) as bytes."""
    chunk = min(_CHUNK, max_entries)
    position = np.zeros(max(8, key_size), np.uint8)
    keys: list[Bytes] = []
    values: list[Bytes] = []
    first = True
    while True:
        some_keys = np.empty((chunk, key_size), np.uint8)
        some_values = np.empty((chunk, value_size), np.uint8)
        request = attr.Batch(
            0 if first else _address(position),
            _address(position),
            _address(some_keys),
            _address(some_values),
            chunk,
            fd,
        )
        result = syscall.call(Command.MAP_LOOKUP_BATCH, request)
        if result == -errno.ENOSPC and chunk < max_entries:  # one bucket holds more than the buffer
            chunk = min(2 * chunk, max_entries)
            continue
        if first and -result in _UNSUPPORTED:
            return _read_singly(fd, name, key_size, value_size)
        if result < 0 and result != -errno.ENOENT:
            raise KernelError(-result, f"reading map {name}")
        keys.append(some_keys[: request.count])
        values.append(some_values[: request.count])
        first = False
        if result < 0:
            return np.concatenate(keys), np.concatenate(values)


def _read_singly(fd: int, name: str, key_size: int, value_size: int) -> tuple[Bytes, Bytes]:
    keys: list[Bytes] = []
    values: list[Bytes] = []
    previous: Bytes | None = None
    while True:
        key, value = np.empty(key_size, np.uint8), np.empty(value_size, np.uint8)
        request = attr.Element(fd, 0, 0 if previous is None else _address(previous), _address(key))
        result = syscall.call(Command.MAP_GET_NEXT_KEY, request)
        if result == -errno.ENOENT:
            break
        if result < 0:
            raise KernelError(-result, f"reading map {name}")
        previous = key
        if syscall.call(Command.MAP_LOOKUP_ELEM, attr.Element(fd, 0, _address(key), _address(value))) == 0:
            keys.append(key)
            values.append(value)
    shape = (len(keys), -1) if keys else (0, key_size)
    return np.concatenate(keys or [np.empty(0, np.uint8)]).reshape(shape), np.concatenate(
        values or [np.empty(0, np.uint8)]
    ).reshape((len(values), value_size))


def write_all(fd: int, name: str, keys: NDArray[Any], values: NDArray[Any], flags: int) -> None:
    """Write n entries. On an error the text says how many were written before it."""
    if len(keys) == 0:
        return
    request = attr.Batch(0, 0, _address(keys), _address(values), len(keys), fd, flags, 0)
    result = syscall.call(Command.MAP_UPDATE_BATCH, request)
    if result == 0:
        return
    done = int(request.count)
    if -result in _UNSUPPORTED and done in (0, len(keys)):
        done, result = _write_singly(fd, keys, values, flags)
    if result < 0:
        how = "the map is full: configure it larger" if -result in (errno.E2BIG, errno.ENOSPC) else ""
        raise KernelError(-result, f"writing {len(keys)} entries to map {name}: {done} done, then", how)


def _write_singly(fd: int, keys: NDArray[Any], values: NDArray[Any], flags: int) -> tuple[int, int]:
    key, value = _address(keys), _address(values)
    key_step, value_step = keys.nbytes // len(keys), values.nbytes // len(keys)
    for i in range(len(keys)):
        request = attr.Element(fd, 0, key + i * key_step, value + i * value_step, flags)
        result = syscall.call(Command.MAP_UPDATE_ELEM, request)
        if result < 0:
            return i, result
    return len(keys), 0


def delete_all(fd: int, name: str, keys: NDArray[Any]) -> int:
    """Delete entries; how many there were. Keys that are not there are passed over."""
    start = deleted = 0
    step = keys.nbytes // len(keys) if len(keys) else 0
    while start < len(keys):
        request = attr.Batch(0, 0, _address(keys) + start * step, 0, len(keys) - start, fd)
        result = syscall.call(Command.MAP_DELETE_BATCH, request)
        if -result in _UNSUPPORTED:
            return deleted + _delete_singly(fd, name, keys[start:], step)
        if result < 0 and result != -errno.ENOENT:
            raise KernelError(-result, f"deleting {len(keys)} entries of map {name}: {deleted} done, then")
        deleted += request.count
        if result == 0:
            break
        start += request.count + 1
    return deleted


def _delete_singly(fd: int, name: str, keys: NDArray[Any], step: int) -> int:
    deleted = 0
    for i in range(len(keys)):
        result = syscall.call(Command.MAP_DELETE_ELEM, attr.Element(fd, 0, _address(keys) + i * step))
        if result < 0 and result != -errno.ENOENT:
            raise KernelError(-result, f"deleting {len(keys)} entries of map {name}: {deleted} done, then")
        deleted += result == 0
    return deleted
