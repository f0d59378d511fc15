"""Entries of the map `policy` as numpy arrays, and what is in the map already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ciliate.model.policy import POLICY_DENY, POLICY_ENTRY, POLICY_KEY, POLICY_PREFIX, Direction, Rule
from numpy.typing import NDArray

from ciliate_policy.resolve import L4, PolicyValue, Profile

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
    groups: dict[int, tuple[Profile, list[int]]] = {}
    for identity, profile in entries.items():
        groups.setdefault(id(profile), (profile, []))[1].append(identity)
    count = sum(len(profile) * len(identities) for profile, identities in groups.values())
    keys, values = np.zeros(count, POLICY_KEY), np.zeros(count, POLICY_ENTRY)
    keys["policy"], keys["direction"] = policy, direction
    start = 0
    for profile, identities in groups.values():
        end = start + len(profile) * len(identities)
        some_keys, some_values = _encode_profile(profile, rule_set)
        keys["identity"][start:end] = np.repeat(np.asarray(identities, "<u4"), len(profile))
        for name in ("prefixlen", "protocol", "port"):
            keys[name][start:end] = np.tile(some_keys[name], len(identities))
        values[start:end] = np.tile(some_values, len(identities))
        start = end
    return keys, values


def _encode_profile(profile: Profile, rule_set: RuleSetOf) -> tuple[Array, Array]:
    keys, values = np.zeros(len(profile), POLICY_KEY), np.zeros(len(profile), POLICY_ENTRY)
    for number, (key, value) in enumerate(profile.items()):
        bits = prefix_bits(key)
        keys[number] = (POLICY_PREFIX + bits, 0, 0, 0, key[0], key[1])
        values[number] = (
            value.precedence, rule_set(value.rules), value.proxy_port, POLICY_DENY if value.deny else 0, 0, bits, 0,
        )  # fmt: skip
    return keys, values


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
