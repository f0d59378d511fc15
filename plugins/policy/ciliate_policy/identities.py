"""Numbers for sets of labels: the reserved ones, and those of this node's own (local) scope."""

from __future__ import annotations

from collections.abc import Iterable

from ciliate.model.identity import LOCAL_SCOPE, Identity, Reserved

_HIGHEST_RESERVED = Reserved.WORLD_IPV6


def reserved_identities(ipv4: bool = True, ipv6: bool = True) -> dict[int, tuple[str, ...]]:
    """The reserved identities and their labels. With one family, `world` has that family's label too."""
    labels: dict[int, tuple[str, ...]] = {
        int(one): (one.label,) for one in Reserved if Reserved.UNKNOWN < one <= _HIGHEST_RESERVED
    }
    labels[Reserved.KUBE_APISERVER] = (Reserved.KUBE_APISERVER.label, Reserved.REMOTE_NODE.label)
    if not (ipv4 and ipv6):
        family = Reserved.WORLD_IPV4 if ipv4 else Reserved.WORLD_IPV6
        labels[Reserved.WORLD] = (Reserved.WORLD.label, family.label)
        del labels[Reserved.WORLD_IPV4], labels[Reserved.WORLD_IPV6]
    return labels


def world_identity(version: int, ipv4: bool = True, ipv6: bool = True) -> int:
    """The identity of what is outside and not known better, for an IP version."""
    if not (ipv4 and ipv6):
        return Reserved.WORLD
    return Reserved.WORLD_IPV4 if version == 4 else Reserved.WORLD_IPV6


class LocalIdentities:
    """Numbers of the local scope by their labels. A number is not given to other labels before the range is through.

    known: rows of an earlier life; used: a number up to which all may be taken already.
    """

    def __init__(self, known: Iterable[Identity] = (), used: int = 0) -> None:
        self._ids = {row.labels: row.id for row in known if row.id in LOCAL_SCOPE}
        self._labels = {number: labels for labels, number in self._ids.items()}
        self._next = max(LOCAL_SCOPE.start - 1, used, *self._labels) + 1

    def allocate(self, labels: tuple[str, ...]) -> int:
        """The number of a sorted tuple of labels, a new one if need be. Raises OverflowError if all are taken."""
        known = self._ids.get(labels)
        if known is not None:
            return known
        if len(self._ids) >= len(LOCAL_SCOPE):
            raise OverflowError(
                f"all {len(LOCAL_SCOPE)} identities of this node are in use; policies name fewer CIDRs?"
            )
        number = self._next if self._next in LOCAL_SCOPE else LOCAL_SCOPE.start
        while number in self._labels:
            number = number + 1 if number + 1 in LOCAL_SCOPE else LOCAL_SCOPE.start
        self._next = number + 1
        self._ids[labels] = number
        self._labels[number] = labels
        return number

    def labels(self, number: int) -> tuple[str, ...] | None:
        """The labels of a number, None if it is free."""
        return self._labels.get(number)

    def free(self, number: int) -> None:
        """Give a number back."""
        labels = self._labels.pop(number, None)
        if labels is not None:
            del self._ids[labels]

    @property
    def rows(self) -> list[Identity]:
        """All of them."""
        return [Identity(id=number, labels=labels) for number, labels in self._labels.items()]
