"""What the engine decides, made so in the kernel's maps `policy`, `endpoint_policy` and `endpoint_stamps`.

In this order, so that no packet meets half a policy: rule sets are durable; entries are written, new policies under ids
that nobody uses; endpoints are pointed at them and their stamps bumped; what nobody uses any more is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from ciliate.counters import Counters
from ciliate.model.endpoint import ENDPOINT_POLICY_ENTRY, POLICY_AUDIT, POLICY_NOT_READY
from ciliate.model.policy import POLICY_ENTRY, POLICY_KEY, RuleSet

from ciliate_policy.changes import Changes, EndpointPolicies, Refreshed
from ciliate_policy.engine import Engine
from ciliate_policy.entries import SLICE, Array, Content, differing, encode, slices
from ciliate_policy.resolve import Profile, Resolved
from ciliate_policy.rule_sets import RuleSets


class EntryMap(Protocol):
    """The map `policy`, as it is used here."""

    def update_batch(self, keys: Array, values: Array) -> None:
        """Write n entries."""

    def delete_batch(self, keys: Array) -> int:
        """Delete n entries."""

    def items(self) -> tuple[Array, Array]:
        """All entries."""


@dataclass
class Realised:
    """What a round has done."""

    endpoints: dict[int, EndpointPolicies] = field(default_factory=dict)
    written: int = 0
    deleted: int = 0


class Realiser:
    """The writer of the policy maps.

    slots: the memory of `endpoint_policy`. stamps: `endpoint_stamps`. save: makes rule sets durable.
    """

    def __init__(
        self, engine: Engine, entries: EntryMap, slots: Array, stamps: Counters, rule_sets: RuleSets,
        save: SaveRuleSets, audit: bool = False,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._entries = entries
        self._slots = slots
        self._stamps = stamps
        self._rule_sets = rule_sets
        self._save = save
        self._flags = POLICY_AUDIT if audit else 0
        self._ids: dict[Resolved, int] = {}
        self._whole: set[Resolved] = set()  # every entry of it is in the map
        self._content: Content | None = Content(*entries.items())
        used = self._content.policies | {int(n) for name in ("ingress", "egress") for n in np.unique(slots[name])}
        self._next = max(used, default=0) + 1
        self._stale: list[Array] = []

    def policy_id(self, resolved: Resolved) -> int:
        """The id under which a policy is in the map; POLICY_NOT_READY if it isn't."""
        return self._ids.get(resolved, POLICY_NOT_READY)

    def is_ready(self, policies: EndpointPolicies) -> bool:
        """Whether an endpoint could be pointed at its policies at once."""
        return policies.ingress in self._whole and policies.egress in self._whole

    def write_entries(self, changes: Changes, done: Realised) -> Iterator[None]:
        """First half: every entry that is new is in the map when this ends. Ends a slice at each yield."""
        self._refresh(changes.refreshed, done)
        fresh = self._number(changes)
        for resolved in fresh:
            for part in slices(resolved.entries):
                keys, values = self._encode(resolved, part)
                self._save(self._rule_sets.take_new())
                self._entries.update_batch(keys, values)
                done.written += len(keys)
                yield
            self._whole.add(resolved)
            yield

    def point(self, changes: Changes, done: Realised) -> None:
        """Second half: endpoints get their policies, all of them in one go; verdicts that changed are judged anew."""
        wanted = [one for one in changes.endpoints.values() if self._engine.realised.get(one.endpoint.id) is one]
        numbers = np.fromiter((one.endpoint.id for one in wanted), np.int64, len(wanted))
        slots = np.zeros(len(wanted), ENDPOINT_POLICY_ENTRY)
        slots["flags"] = self._flags
        slots["identity"] = [one.endpoint.identity for one in wanted]
        slots["ingress"] = [self._ids[one.ingress] for one in wanted]
        slots["egress"] = [self._ids[one.egress] for one in wanted]
        different = self._slots[numbers] != slots
        numbers, slots = numbers[different], slots[different]
        for name in ("flags", "identity", "ingress", "egress"):
            self._slots[name][numbers] = slots[name]
        self.bump(numbers)
        done.endpoints.update({one.endpoint.id: one for one in wanted})
        changed = {one.resolved for one in changes.refreshed if not one.fresh}
        if changed:
            self.bump(self._engine.users(changed))

    def bump(self, endpoints: Iterable[int] | Array) -> None:
        """Have the verdicts of some endpoints judged anew."""
        self._stamps.bump_many(np.unique(np.fromiter(endpoints, np.int64)))

    def clear(self, endpoint: int) -> None:
        """An endpoint is gone: its slot says that nothing is decided."""
        for name in ("ingress", "egress", "identity", "flags"):
            self._slots[name][endpoint] = 0
        self.bump([endpoint])

    def tidy(self, done: Realised) -> Iterator[None]:
        """Delete the entries of policies that no endpoint has any more, and what changed entries left behind."""
        stale, self._stale = self._stale, []
        for resolved in [one for one in self._ids if not self._engine.in_use(one)]:
            policy = self._ids.pop(resolved)
            self._whole.discard(resolved)
            for part in slices(resolved.entries):
                keys, _ = encode(policy, resolved.key.direction, part, lambda _: 0)
                done.deleted += self._entries.delete_batch(keys)
                yield
        for keys in stale:
            for start in range(0, len(keys), SLICE):
                done.deleted += self._entries.delete_batch(keys[start : start + SLICE])
                yield

    def prune(self, done: Realised) -> Iterator[None]:
        """Once, when all is known: delete what an earlier life left in the map and nobody uses; adopt no more."""
        content, self._content = self._content, None
        if content is None:
            return
        for policy in content.policies - set(self._ids.values()):
            keys, _ = content.of(policy)
            for start in range(0, len(keys), SLICE):
                done.deleted += self._entries.delete_batch(np.ascontiguousarray(keys[start : start + SLICE]))
                yield

    def rule_sets_in_use(self) -> set[int]:
        """The numbers that entries name."""
        profiles = {id(profile): profile for resolved in self._ids for profile in resolved.entries.values()}
        return {self._rule_sets.number(value.rules) for profile in profiles.values() for value in profile.values()}

    def _number(self, changes: Changes) -> list[Resolved]:
        """Give new policies their ids; those whose entries the map does not hold already."""
        fresh = []
        for resolved in changes.created:
            if resolved in self._ids or not self._engine.in_use(resolved):
                continue
            policy = self._adopted(resolved, changes)
            if policy is not None:
                self._ids[resolved] = policy
                self._whole.add(resolved)
                continue
            self._ids[resolved], self._next = self._next, self._next + 1
            fresh.append(resolved)
        return fresh

    def _adopted(self, resolved: Resolved, changes: Changes) -> int | None:
        """The id of an earlier life's policy that is the same to the last entry, for the first endpoint that has it."""
        if self._content is None:
            return None
        name = resolved.key.direction.name.lower()
        for one in changes.endpoints.values():
            if getattr(one, name) is resolved:
                policy = int(self._slots[name][one.endpoint.id])
                if policy in self._content.policies and policy not in self._ids.values():
                    keys, values = encode(policy, resolved.key.direction, resolved.entries, self._rule_sets.number)
                    if self._content.equals(policy, keys, values):
                        return policy
        return None

    def _refresh(self, refreshed: list[Refreshed], done: Realised) -> None:
        keys, values = [], []
        for one in _net(refreshed):
            if one.resolved not in self._ids:
                continue
            written, gone = differing(one.before, one.after)
            if written:
                some = self._encode(one.resolved, {one.identity: written})
                keys.append(some[0])
                values.append(some[1])
            if gone:
                lost = {key: one.before[key] for key in gone}
                self._stale.append(self._encode(one.resolved, {one.identity: lost})[0])
        self._save(self._rule_sets.take_new())
        if keys:
            done.written += sum(map(len, keys))
            self._entries.update_batch(
                np.concatenate(keys, dtype=POLICY_KEY),  # of itself it would turn the port's bytes about
                np.concatenate(values, dtype=POLICY_ENTRY),
            )

    def _encode(self, resolved: Resolved, entries: dict[int, Profile]) -> tuple[Array, Array]:
        return encode(self._ids[resolved], resolved.key.direction, entries, self._rule_sets.number)


def _net(refreshed: list[Refreshed]) -> Iterable[Refreshed]:
    """Several changes of one identity in one policy as one: what is gone and back again must not be deleted."""
    net: dict[tuple[Resolved, int], Refreshed] = {}
    for one in refreshed:
        first = net.get((one.resolved, one.identity))
        before, fresh = (one.before, one.fresh) if first is None else (first.before, first.fresh)
        net[one.resolved, one.identity] = Refreshed(one.resolved, one.identity, before, one.after, fresh)
    return net.values()


class SaveRuleSets(Protocol):
    """Makes rows durable before it returns."""

    def __call__(self, rows: list[RuleSet], /) -> Any:
        """Save them."""
