"""Label selectors, compiled: requirements on labels, all of which must hold."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache

import msgspec

from ciliate_policy.labels import parse_label

LabelMap = Mapping[str, frozenset[str]]
"""`source:key`, and `any:key` for every source's, to its values: how a set of labels is asked."""


class Operator(enum.Enum):
    """What a requirement asks of a key's value; texts as in manifests."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(msgspec.Struct, frozen=True, order=False, gc=False):
    """One condition. `key` has a source, `any` if the manifest named none."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: LabelMap) -> bool:
        """NotIn holds where the key is absent, as in Kubernetes."""
        values = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return values is not None and not values.isdisjoint(self.values)
            case Operator.NOT_IN:
                return values is None or values.isdisjoint(self.values)
            case Operator.EXISTS:
                return values is not None
            case Operator.DOES_NOT_EXIST:
                return values is None

    @property
    def positive(self) -> bool:
        """Whether a label must be there for it to hold."""
        return self.operator in (Operator.IN, Operator.EXISTS)

    def tokens(self) -> tuple[str, ...]:
        """Of a positive one: a matching set of labels has at least one of these in its `tokens`."""
        if self.operator is Operator.EXISTS:
            return (self.key,)
        return tuple(f"{self.key}={value}" for value in self.values)

    def __str__(self) -> str:
        if self.operator is Operator.IN and len(self.values) == 1:
            return f"{self.key}={self.values[0]}"
        listed = f" [{', '.join(self.values)}]" if self.values else ""
        return f"{self.key} {self.operator.value}{listed}"


class LabelSelector(msgspec.Struct, frozen=True, dict=True):
    """A conjunction of requirements; none: matches everything. Canonical: equal selectors compare and hash equal."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: LabelMap) -> bool:
        """Whether every requirement holds."""
        return all(requirement.holds(labels) for requirement in self.requirements)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.requirements)

    def __str__(self) -> str:
        return ", ".join(map(str, self.requirements)) or "everything"


def make_selector(requirements: Iterable[Requirement]) -> LabelSelector:
    """The canonical selector of some requirements."""
    return LabelSelector(tuple(sorted(set(requirements), key=_order)))


def _order(requirement: Requirement) -> tuple[str, str, tuple[str, ...]]:
    return requirement.key, requirement.operator.value, requirement.values


def equals(key: str, value: str) -> Requirement:
    """The requirement `key=value`; the key has a source."""
    return Requirement(key, Operator.IN, (value,))


def exists(key: str) -> Requirement:
    """The requirement that a key is there; the key has a source."""
    return Requirement(key, Operator.EXISTS)


def selector_key(text: str) -> str:
    """A selector's key with its source: `app` is `any:app`, `$host` is `reserved:host`."""
    label = parse_label(text, "any")
    return f"{label.source}:{label.key}"


def label_map(labels: Iterable[str]) -> dict[str, frozenset[str]]:
    """The form in which labels are asked by selectors."""
    found: dict[str, frozenset[str]] = {}
    for text in labels:
        keys, values = _asked(text)
        for key in keys:
            found[key] = found[key] | values if key in found else values
    return found


@lru_cache(1 << 16)
def _asked(text: str) -> tuple[tuple[str, str], frozenset[str]]:
    label = parse_label(text)
    return (f"{label.source}:{label.key}", f"any:{label.key}"), frozenset((label.value,))


def tokens(labels: LabelMap) -> set[str]:
    """The tokens under which a set of labels is found in an index: each key, and each key with each value."""
    found = set(labels)
    for key, values in labels.items():
        found.update(f"{key}={value}" for value in values)
    return found
