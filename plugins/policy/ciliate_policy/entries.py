"""Entries of the map `policy` as numpy arrays, and what is in the map already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from ciliate.model.policy import POLICY_DENY, POLICY_ENTRY, POLICY_KEY, POLICY_PREFIX, Direction, Rule
from numpy.typing import NDArray

from ciliate_policy.resolve import L4, PolicyValue, Profile

SLICE, DISTINCT = 1024, 256
"""Entries that are written between two looks at what else is to be done, and of them those of different profiles."""
Array = NDArray[Any]
RuleSetOf = Callable[[tuple[Rule, ...]], int]


def prefix_bits(key: L4) -> int:
    """How many bits of protocol and port a key matches: 0, 8, 9 to 24."""
    protocol, _, length = key
    return 8 + length if protocol else 0


def encode(
    policy: int, direction: Direction, entries: Mapping[int, Profile], rule_set: RuleSetOf
) -> tuple[Array, Array]:
    """Keys (n,) and values (n,) of the entries of some identities. A profile that many share is worked out once."""
    some_keys: list[tuple[int, ...]] = []  # of each profile once
    some_values: list[tuple[int, ...]] = []
    places: dict[int, int] = {}  # id of a profile to where its entries begin
    starts: list[int] = []  # for each identity
    for profile in entries.values():
        start = places.get(id(profile))
        if start is None:
            start = places[id(profile)] = len(some_keys)
            for key, value in profile.items():
                bits = prefix_bits(key)
                some_keys.append((POLICY_PREFIX + bits, policy, 0, direction, key[0], key[1]))
                flags = POLICY_DENY if value.deny else 0
                some_values.append((value.precedence, rule_set(value.rules), value.proxy_port, flags, 0, bits, 0))
        starts.append(start)
    lengths = np.fromiter(map(len, entries.values()), np.int64, len(entries))
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    taken = np.arange(total) + np.repeat(np.asarray(starts, np.int64) - ends + lengths, lengths)
    keys = np.array(some_keys, POLICY_KEY)[taken]
    keys["identity"] = np.repeat(np.fromiter(entries, "<u4", len(entries)), lengths)
    return keys, np.array(some_values, POLICY_ENTRY)[taken]


def slices(entries: Mapping[int, Profile]) -> Iterator[dict[int, Profile]]:
    """Entries, as they are when this begins, in parts that are encoded and written in a few milliseconds each."""
    part: dict[int, Profile] = {}
    rows, work, seen = 0, 0, set[int]()
    for identity, profile in list(entries.items()):
        part[identity] = profile
        rows += len(profile)
        if id(profile) not in seen:
            seen.add(id(profile))
            work += len(profile)
        if rows >= SLICE or work >= DISTINCT:
            yield part
            part, rows, work, seen = {}, 0, 0, set()
    if part:
        yield part


def differing(before: Profile, after: Profile) -> tuple[dict[L4, PolicyValue], list[L4]]:
    """What must be written and what must be deleted to come from one profile to another."""
    written = {key: value for key, value in after.items() if before.get(key) != value}
    return written, [key for key in before if key not in after]


class Content:
    """What the map held when this process began, by policy id: adopted where it is what is wanted."""

    def __init__(self, keys: Array, values: Array) -> None:
        order = np.argsort(keys["policy"], kind="stable")
        self._keys, self._values = keys[order], values[order]
        self.policies = {int(number) for number in np.unique(keys["policy"])}

    def of(self, policy: int) -> tuple[Array, Array]:
        """Keys and values of one policy id."""
        numbers = self._keys["policy"]
        start, end = np.searchsorted(numbers, policy, "left"), np.searchsorted(numbers, policy, "right")
        return self._keys[start:end], self._values[start:end]

    def equals(self, policy: int, keys: Array, values: Array) -> bool:
        """Whether a policy id holds exactly these entries."""
        have_keys, have_values = self.of(policy)
        if len(have_keys) != len(keys):
            return False
        return _sorted(have_keys, have_values) == _sorted(keys, values)


def _sorted(keys: Array, values: Array) -> tuple[bytes, bytes]:
    order = np.lexsort((keys["port"], keys["protocol"], keys["prefixlen"], keys["identity"], keys["direction"]))
    return keys[order].tobytes(), values[order].tobytes()
