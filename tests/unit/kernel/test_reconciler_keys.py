"""How the reconciler finds equal keys: against the obvious way, and where two keys meet in one number."""

from __future__ import annotations

import numpy as np
from ciliate import reconciler
from hypothesis import given
from hypothesis import strategies as st

WIDE = np.dtype([("a", "<u8"), ("b", "<u8"), ("c", "<u2")])
small = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), max_size=12)


@given(small, small)
def test_equal_keys_and_no_others_get_equal_numbers(
    one: list[tuple[int, int, int]], other: list[tuple[int, int, int]]
) -> None:
    first, second = reconciler._identify(np.array(one, WIDE), np.array(other, WIDE))
    for key, number in zip(one, first.tolist(), strict=True):
        assert [number == n for n in second.tolist()] == [key == k for k in other]


def test_keys_that_meet_in_one_number_are_still_told_apart() -> None:
    multiplier = int(reconciler._MULTIPLIER)

    def mixed(word: int) -> int:
        product = word * multiplier % 2**64
        return product ^ (product >> 32)

    keys = np.array([(1, mixed(1), 0), (2, mixed(2), 0), (1, mixed(1), 0)], WIDE)  # both become 0 after two words
    first, second = reconciler._identify(keys, keys[:1])
    assert first[0] != first[1]
    assert first[0] == first[2] == second[0]
