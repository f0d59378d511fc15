"""Keys and values become the kernel's bytes, or a clear refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ciliate.maps.elements import encode, encode_many, round_up_8
from hypothesis import given
from hypothesis import strategies as st

KEY = np.dtype([("prefixlen", "<u4"), ("address", "u1", 16), ("port", ">u2")])


@given(st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16), st.integers(0, 65535))
def test_a_tuple_a_scalar_and_bytes_are_the_same(length: int, address: bytes, port: int) -> None:
    raw = length.to_bytes(4, "little") + address + port.to_bytes(2, "big")
    scalar = np.frombuffer(raw, KEY)[0]
    assert encode((length, address, port), KEY, "key") == raw
    assert encode(scalar, KEY, "key") == raw
    assert encode(raw, KEY, "key") == raw
    assert encode_many([scalar, raw, (length, address, port)], KEY, "keys").tobytes() == raw * 3


@pytest.mark.parametrize(
    ("element", "dtype", "reason"),
    [
        (b"short", KEY, "key of map m: 5 bytes given, 22 wanted"),
        ((1, b"x" * 16), KEY, "2 fields given, 3 wanted"),
        ((1, b"x" * 15, 3), KEY, "field address: 15 bytes given, 16 wanted"),
        ((1, b"x" * 16, 70_000), KEY, "does not fit"),
        ((-1, b"x" * 16, 7), KEY, "does not fit"),
        (1, KEY, "a tuple of 3 is wanted"),
        ("text", np.dtype("<u4"), "'text' does not fit uint32"),
        (2**32, np.dtype("<u4"), "does not fit uint32"),
        (np.zeros((), np.dtype([("x", "u1")]))[()], KEY, "given, one"),
        (np.arange(3), np.dtype("<u4"), "of shape .3,. given"),
        (None, KEY, "a tuple of 3 is wanted"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(element: Any, dtype: np.dtype[Any], reason: str) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError), match=reason) as refused:
        encode(element, dtype, "key of map m")
    assert str(refused.value).startswith("key of map m: ")


def test_plain_numbers_may_be_of_any_integer_type() -> None:
    assert encode(np.int64(7), np.dtype("<u4"), "key") == b"\7\0\0\0"
    assert encode_many(np.arange(2), np.dtype("<u4"), "keys").tolist() == [0, 1]


def test_an_array_of_another_dtype_or_shape_is_refused() -> None:
    for wrong in (np.zeros(3), np.zeros((2, 2), KEY), np.zeros(3, np.dtype([("x", "u1")]))):
        with pytest.raises(TypeError, match=r"keys of map m: .* given, .n,. of"):
            encode_many(wrong, KEY, "keys of map m")


def test_rounding_up_to_eight() -> None:
    assert [round_up_8(n) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]
