"""How far each node has realised each policy, from the nodes' reports. Pure: what is told comes in by methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ciliate.model.policy_report import EMPTY, PolicyHistory
from ciliate.store import ObjectKey

from ciliate_policy.rules import PolicyKey


@dataclass
class _Node:
    digests: dict[str, str] | None = None  # by kind; None: it has never reported
    states: dict[str, int] = field(default_factory=dict)  # by kind: the state that it has realised, as far as known


class Progress:
    """The cluster's nodes and policies, and which has which."""

    def __init__(self) -> None:
        self._histories: defaultdict[str, PolicyHistory] = defaultdict(PolicyHistory)
        self._nodes: dict[str, _Node] = {}
        self._reports: dict[str, dict[str, str]] = {}  # also of nodes that are not known yet
        self._trusted: set[PolicyKey] = set()
        self._reported: set[str] = set()  # nodes whose report is to be looked at

    @property
    def nodes(self) -> Iterable[str]:
        """Names of the cluster's nodes."""
        return self._nodes.keys()

    def set_policy(self, key: PolicyKey, uid: str, generation: int) -> bool:
        """A policy is there in this state; whether that is new."""
        fresh = self._histories[key.kind].put(ObjectKey(key.namespace, key.name), uid, generation)
        if fresh:
            self._trusted.discard(key)
        return fresh

    def remove_policy(self, key: PolicyKey) -> None:
        """A policy is gone."""
        self._histories[key.kind].remove(ObjectKey(key.namespace, key.name))
        self._trusted.discard(key)

    def trust(self, key: PolicyKey) -> None:
        """An earlier operator has seen this state of a policy on all nodes: hold it true of those that can't be read.

        A node whose agent is down may be at a state that this process has never seen; it enforces what it had.
        """
        self._trusted.add(key)

    def set_node(self, name: str) -> bool:
        """A node is there; whether that is new."""
        if name in self._nodes:
            return False
        self._nodes[name] = _Node(self._reports.get(name))
        self._reported.add(name)
        return True

    def remove_node(self, name: str) -> None:
        """A node is gone."""
        self._nodes.pop(name, None)

    def set_report(self, name: str, digests: dict[str, str] | None) -> None:
        """What a node says it has realised; None: it says nothing any more."""
        if digests is None:
            self._reports.pop(name, None)
        else:
            self._reports[name] = digests
        if name in self._nodes:
            self._nodes[name].digests = digests
            self._reported.add(name)

    def take(self) -> Iterator[tuple[PolicyKey, bool]]:
        """Read the reports that are new, or were of states not seen yet: policies that more nodes have now, and whether
        all have."""
        pending, self._reported = self._reported, set()
        lowest: dict[str, int] = {}
        for name in pending:
            node = self._nodes.get(name)
            if node is None:
                continue
            for kind, history in self._histories.items():
                if node.digests is None:
                    continue
                state = history.state_of(node.digests.get(kind, EMPTY))
                if state is None:
                    self._reported.add(name)  # of a state that may come to be seen yet
                    continue
                before = node.states.get(kind, -1)
                if state > before:
                    node.states[kind] = state
                    lowest[kind] = min(lowest.get(kind, before), before)
        for kind, before in lowest.items():
            yield from self._risen(kind, before)

    def _risen(self, kind: str, before: int) -> Iterator[tuple[PolicyKey, bool]]:
        """Policies that have changed after a state, newest first."""
        reached = min((node.states.get(kind, -1) for node in self._nodes.values()), default=-1)
        for key, since in reversed(self._histories[kind].since.items()):
            if since <= before:
                return
            yield PolicyKey(kind, key.namespace, key.name), since <= reached

    def lacking(self, key: PolicyKey) -> list[str]:
        """Nodes that are not known to have realised a policy as it is."""
        since = self._histories[key.kind].since.get(ObjectKey(key.namespace, key.name))
        if since is None:
            return []
        trusted = key in self._trusted
        return [name for name, node in self._nodes.items() if not _has(node, key.kind, since, trusted)]

    def has_reported(self, name: str) -> bool:
        """Whether a node has ever said anything."""
        node = self._nodes.get(name)
        return node is not None and node.digests is not None


def _has(node: _Node, kind: str, since: int, trusted: bool) -> bool:
    state = node.states.get(kind)
    return state >= since if state is not None else trusted and node.digests is not None
