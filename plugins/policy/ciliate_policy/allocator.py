"""Identities of pods: one for each distinct set of identity-relevant labels, the same on every node of the cluster.

An identity is a CiliumIdentity object, whose name is the number: whoever creates it first has it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ciliate.model.identity import CLUSTER_SCOPE
from ciliate.model.kinds import CILIUM_IDENTITY
from ciliate.store import AlreadyExistsError, NotFoundError, Store, StoreError

from ciliate_policy.identities import reserved_identities
from ciliate_policy.labels import Label, parse_label

Labels = tuple[str, ...]
HEARTBEAT = "io.cilium.heartbeat"
"""Annotation of an identity that the operator has found unused: since when. Without it, it is in use."""
MISSES = 6
"""How often a number is guessed before all are tried in order."""
_LABEL_NAME = 63
"""Characters of a label's name, behind its prefix, in Kubernetes."""


class IdentityExhaustedError(Exception):
    """Every number of the cluster scope is taken."""


class Allocator:
    """Numbers by labels, as far as they are known here, and how to get one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers: defaultdict[Labels, set[int]] = defaultdict(set)
        self._labels: dict[int, Labels] = {}
        self._unused: set[int] = set()  # numbers that will be deleted if nobody takes them into use
        self._keeping: set[asyncio.Task[None]] = set()
        self._reserved = {labels: number for number, labels in reserved_identities().items()}

    def known(self, labels: Labels) -> int | None:
        """The number of some labels (of several the lowest), None if there is none yet."""
        if labels in self._reserved:
            return self._reserved[labels]
        numbers = self._numbers.get(labels)
        return min(numbers) if numbers else None

    def is_known(self, number: int) -> bool:
        """Whether a number stands for something in the cluster."""
        return number in self._labels

    def learn(self, number: int, labels: Labels, unused: bool = False) -> None:
        """A number stands for some labels. unused: it will be deleted if nobody takes it into use."""
        self.forget(number)
        if unused:
            self._unused.add(number)
        self._labels[number] = labels
        self._numbers[labels].add(number)

    def forget(self, number: int) -> Labels | None:
        """A number is free again; the labels that it stood for."""
        labels = self._labels.pop(number, None)
        self._unused.discard(number)
        if labels is not None:
            self._numbers[labels].discard(number)
            if not self._numbers[labels]:
                del self._numbers[labels]
        return labels

    async def allocate(self, labels: Labels) -> int:
        """A number for some labels: the known one, or a new one. Raises IdentityExhaustedError, StoreError."""
        known = self.known(labels)
        if known is not None:
            return known
        for number in self._free():
            try:
                await self._store.create(identity_object(number, labels))
            except AlreadyExistsError:
                await self._learn_from_store(number)
                known = self.known(labels)
                if known is not None:
                    return known
                continue
            self.learn(number, labels)
            return number
        raise IdentityExhaustedError(
            f"all {len(CLUSTER_SCOPE)} identities of the cluster are taken;"
            " leave labels that differ from pod to pod out of identities with policy.labels"
        )

    def use(self, number: int) -> None:
        """A pod has this number: one that was found unused is told not to be so any more.

        If that can't be said now, the operator sees it by the pod's CiliumEndpoint.
        """
        if number in self._unused:
            self._unused.discard(number)
            task = asyncio.get_running_loop().create_task(self._keep(number))
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    async def _keep(self, number: int) -> None:
        with suppress(StoreError):
            await self._store.patch(CILIUM_IDENTITY, heartbeat({"metadata": {"name": str(number)}}, None))

    async def _learn_from_store(self, number: int) -> None:
        """Another node was faster; the watch may tell later what its number stands for."""
        try:
            found = identity_of_object(await self._store.get(CILIUM_IDENTITY, str(number)))
        except NotFoundError:
            return
        if found is not None:
            self.learn(*found)

    def _free(self) -> Iterator[int]:
        """Candidates: those above the highest known one first: a number freed lately is not given out at once.

        Nodes that want one at the same moment look further apart after each miss.
        """
        highest = max(self._labels, default=CLUSTER_SCOPE.start - 1)
        for miss in range(MISSES):
            number = highest + 1 + random.randrange(4**miss)
            if number in CLUSTER_SCOPE and number not in self._labels:
                yield number
        above, below = range(highest + 1, CLUSTER_SCOPE.stop), range(CLUSTER_SCOPE.start, highest)
        yield from (number for number in itertools.chain(above, below) if number not in self._labels)


def identity_object(number: int, labels: Labels) -> dict[str, Any]:
    """The CiliumIdentity of a number. Its metadata has the labels that Kubernetes allows, for people to select by."""
    parsed = [parse_label(text) for text in labels]
    shown = [one for one in parsed if one.source == "k8s" and len(one.key.rpartition("/")[2]) <= _LABEL_NAME]
    return {
        "apiVersion": CILIUM_IDENTITY.api_version,
        "kind": CILIUM_IDENTITY.kind,
        "metadata": {"name": str(number), "labels": {one.key: one.value for one in shown}},
        "security-labels": {f"{one.source}:{one.key}": one.value for one in parsed},
    }


def is_unused(obj: Mapping[str, Any]) -> bool:
    """Whether the operator has found an identity unused."""
    return HEARTBEAT in (obj["metadata"].get("annotations") or {})


def heartbeat(obj: Mapping[str, Any], since: str | None) -> dict[str, Any]:
    """The change that says since when an identity is unused, or (None) that it is in use.

    If the object has a revision, the change is to that one alone.
    """
    named = {key: obj["metadata"][key] for key in ("name", "uid", "resourceVersion") if key in obj["metadata"]}
    return {"metadata": {**named, "annotations": {HEARTBEAT: since}}}


def identity_of_object(obj: Mapping[str, Any]) -> tuple[int, Labels] | None:
    """(number, labels) of a CiliumIdentity, None if it is malformed or outside the cluster's scope."""
    name = str(obj.get("metadata", {}).get("name", ""))
    labels = obj.get("security-labels")
    if not name.isdecimal() or int(name) not in CLUSTER_SCOPE or not isinstance(labels, dict):
        return None
    try:
        parsed = [parse_label(str(key)) for key in labels]
    except ValueError:
        return None
    found = {str(Label(one.source, one.key, str(value))) for one, value in zip(parsed, labels.values(), strict=True)}
    return int(name), tuple(sorted(found))
