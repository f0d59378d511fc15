"""Which identity each prefix outside the cluster has, as CIDR selectors and groups come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from ciliate.model.base import IPNetwork
from ciliate.model.identity import Reserved

from ciliate_policy.cidrs import CidrIndex, Prefix, selector_label
from ciliate_policy.identities import LocalIdentities, reserved_identities, world_identity
from ciliate_policy.peers import covers
from ciliate_policy.rules import CidrGroup, CidrSelector
from ciliate_policy.selectors import label_map


@dataclass
class RegionUpdate:
    """What changed: prefixes (None: no region any more), identities that are new, labels of identities to be set."""

    prefixes: dict[Prefix, int | None] = field(default_factory=dict)
    identities: dict[int, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[int, tuple[str, ...]] = field(default_factory=dict)


class CidrIdentities:
    """Regions to identities. One identity for each set of covering selectors; what is at /0 is `world` itself."""

    def __init__(self, local: LocalIdentities, ipv4: bool = True, ipv6: bool = True) -> None:
        self._local = local
        self._ipv4, self._ipv6 = ipv4, ipv6
        self._reserved = reserved_identities(ipv4, ipv6)
        self._index = CidrIndex()
        self._groups: dict[str, CidrGroup] = {}
        self._uses: Counter[str] = Counter()
        self._labels: dict[CidrSelector, str] = {}
        self._selectors: dict[str, CidrSelector] = {}
        self.regions: dict[Prefix, int] = {}
        self._regions_of: Counter[int] = Counter()
        self._known: set[int] = set()

    def label(self, selector: CidrSelector) -> str:
        """The label that the selector's identities carry."""
        if selector not in self._labels:
            self._labels[selector] = selector_label(selector)
            self._selectors[self._labels[selector]] = selector
        return self._labels[selector]

    def acquire(self, label: str) -> set[Prefix]:
        """Begin to use the selector of a label; the regions that it touches."""
        self._uses[label] += 1
        return self._put(label) if self._uses[label] == 1 else set()

    def release(self, label: str) -> set[Prefix]:
        """Give up a use; the regions that it touched."""
        self._uses[label] -= 1
        if self._uses[label]:
            return set()
        del self._uses[label]
        return self._index.discard(label)

    def set_group(self, group: CidrGroup) -> set[Prefix]:
        """Add or replace a group; the regions that change."""
        old = self._groups.get(group.name)
        self._groups[group.name] = group
        return self._regroup([one for one in (old, group) if one is not None])

    def remove_group(self, name: str) -> set[Prefix]:
        """Forget a group; the regions that change."""
        old = self._groups.pop(name, None)
        return self._regroup([old]) if old is not None else set()

    def mark(self, label: str, networks: Iterable[IPNetwork]) -> set[Prefix]:
        """Have exactly these prefixes carry a label, beside what selectors make of them; the regions that change."""
        return self._index.put(label, [(network, ()) for network in networks])

    def update(self, touched: Set[Prefix]) -> RegionUpdate:
        """Work out the identities of regions."""
        update = RegionUpdate()
        for prefix in touched:
            cover = self._index.cover(prefix) if prefix in self._index else None
            if prefix[2] == 0:
                world = world_identity(prefix[0], self._ipv4, self._ipv6)
                update.labels[world] = tuple(sorted({*self._reserved[world], *(cover or ())}))
            elif cover is None:
                if prefix in self.regions:
                    self._regions_of[self.regions.pop(prefix)] -= 1
                    update.prefixes[prefix] = None
            else:
                self._assign(prefix, cover, update)
        return update

    def identities(self) -> dict[int, tuple[str, ...]]:
        """The local identities in use, and their labels."""
        return {row.id: row.labels for row in self._local.rows if row.id in self._known}

    def unused(self) -> list[int]:
        """Local identities that no region has."""
        return [row.id for row in self._local.rows if self._regions_of[row.id] <= 0]

    def free(self, number: int) -> None:
        """Give a number back."""
        self._local.free(number)
        self._known.discard(number)
        del self._regions_of[number]

    def _assign(self, prefix: Prefix, cover: frozenset[str], update: RegionUpdate) -> None:
        world = world_identity(prefix[0], self._ipv4, self._ipv6)
        labels = tuple(sorted({*cover, *self._world_labels(prefix[0], world)}))
        number = self._local.allocate(labels)
        if number not in self._known:
            self._known.add(number)
            update.labels[number] = labels
            update.identities[number] = labels
        if self.regions.get(prefix) != number:
            if prefix in self.regions:
                self._regions_of[self.regions[prefix]] -= 1
            self.regions[prefix] = number
            self._regions_of[number] += 1
            update.prefixes[prefix] = number

    def _world_labels(self, version: int, world: int) -> tuple[str, ...]:
        if world == Reserved.WORLD and (version == 4) != self._ipv4:
            return (Reserved.WORLD.label,)
        return self._reserved[world]

    def _put(self, label: str) -> set[Prefix]:
        return self._index.put(label, self._members(self._selectors[label]))

    def _regroup(self, groups: Iterable[CidrGroup]) -> set[Prefix]:
        touched: set[Prefix] = set()
        for label in list(self._uses):
            if any(_names(self._selectors[label], group) for group in groups):
                touched |= self._put(label)
        return touched

    def _members(self, selector: CidrSelector) -> list[tuple[IPNetwork, tuple[IPNetwork, ...]]]:
        members = list(selector.networks)
        for name, excepts in selector.groups:
            if name in self._groups:
                members += _less(self._groups[name], excepts)
        for one, excepts in selector.group_selectors:
            for group in self._groups.values():
                if one.matches(label_map(group.labels)):
                    members += _less(group, excepts)
        return list(dict.fromkeys(members))


def _names(selector: CidrSelector, group: CidrGroup) -> bool:
    if any(name == group.name for name, _ in selector.groups):
        return True
    return any(one.matches(label_map(group.labels)) for one, _ in selector.group_selectors)


def _less(group: CidrGroup, excepts: tuple[IPNetwork, ...]) -> list[tuple[IPNetwork, tuple[IPNetwork, ...]]]:
    """A group's members, each with the exceptions that concern it."""
    return [
        (network, tuple(one for one in excepts if covers(network, one)))
        for network in group.networks
        if not any(covers(one, network) for one in excepts)
    ]
