"""Keys and values between Python and the kernel's bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Element = Any
"""A key or a value as callers may give it: bytes of the exact size, a numpy scalar of the dtype, an int (plain
numbers), or a tuple in the order of the dtype's fields, in which bytes stand for a field that is an array of bytes."""


def _possible_cpus() -> int:
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(ranges.replace(",", "-").rsplit("-", 1)[-1]) + 1


POSSIBLE_CPUS = _possible_cpus()
"""How many values a per-CPU map has for a key."""


def round_up_8(size: int) -> int:
    """The next multiple of eight: how the kernel spaces array elements and per-CPU values."""
    return (size + 7) & ~7


def encode(element: Element, dtype: np.dtype[Any], what: str) -> bytes:
    """The kernel's bytes of a key or value. Raises ValueError or TypeError, beginning with `what`."""
    if isinstance(element, bytes | bytearray | memoryview):
        raw = bytes(element)
        if len(raw) != dtype.itemsize:
            raise ValueError(f"{what}: {len(raw)} bytes given, {dtype.itemsize} wanted ({_describe(dtype)})")
        return raw
    if isinstance(element, np.generic | np.ndarray):
        if element.dtype == dtype and element.size == 1:
            return element.tobytes()
        if dtype.names is not None or element.size != 1:
            raise TypeError(
                f"{what}: dtype {element.dtype} of shape {element.shape} given, one {_describe(dtype)} wanted"
            )
    try:
        if dtype.names is None:
            return np.asarray(element, dtype).tobytes()
        return _encode_fields(element, dtype).tobytes()
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(f"{what}: {element!r} does not fit {_describe(dtype)}: {error}") from error


def _encode_fields(element: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    assert dtype.names is not None
    if not isinstance(element, tuple):
        raise TypeError(f"a tuple of {len(dtype.names)} is wanted")
    if len(element) != len(dtype.names):
        raise ValueError(f"{len(element)} fields given, {len(dtype.names)} wanted")
    record = np.zeros(1, dtype)
    for name, field in zip(dtype.names, element, strict=True):
        if isinstance(field, bytes):
            field = np.frombuffer(field, np.uint8)
            if field.nbytes != dtype[name].itemsize:
                raise ValueError(f"field {name}: {field.nbytes} bytes given, {dtype[name].itemsize} wanted")
        record[name] = field
    return record


def encode_many(elements: NDArray[Any] | Iterable[Element], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """A contiguous array of shape (n,) of the dtype, from an array of that dtype or from single elements."""
    if isinstance(elements, np.ndarray):
        same = elements.dtype == dtype or (dtype.names is None and elements.dtype.kind in "ui")
        if not same or elements.ndim != 1:
            raise TypeError(
                f"{what}: {elements.dtype} of shape {elements.shape} given, (n,) of {_describe(dtype)} wanted"
            )
        return np.ascontiguousarray(elements, dtype)
    return np.frombuffer(b"".join(encode(element, dtype, what) for element in elements), dtype)


def _describe(dtype: np.dtype[Any]) -> str:
    return str(dtype) if dtype.names is None else "(" + ", ".join(dtype.names) + ")"
