"""What rows of flows name by number: all that is needed to show them. One value, passed about with the rows."""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field

from ciliate_hubble.ends import Ends
from ciliate_hubble.interfaces import Interfaces
from ciliate_hubble.l7 import L7Entries
from ciliate_hubble.rules import Rules

_VERSIONS_KEPT = 64


class NodeLabels:
    """The node's labels over time, as `key=value`: flows keep those that held when they happened."""

    def __init__(self) -> None:
        self._versions: deque[tuple[int, tuple[str, ...]]] = deque([(0, ())], maxlen=_VERSIONS_KEPT)

    def put(self, labels: tuple[str, ...], sequence: int) -> None:
        """From a flow on, these."""
        if labels != self._versions[-1][1]:
            self._versions.append((sequence, labels))

    def versions(self) -> list[tuple[int, tuple[str, ...]]]:
        """From which flow on they were which, in order."""
        return list(self._versions)

    def at(self, sequence: int) -> tuple[str, ...]:
        """Those of a flow."""
        return next((labels for first, labels in reversed(self._versions) if first <= sequence), self._versions[0][1])


class Uuids:
    """A flow's uuid: this process's life and the flow's sequence number, in the form of RFC 9562's version 8."""

    def __init__(self, life: int | None = None) -> None:
        life = secrets.randbits(60) if life is None else life
        self._prefix = f"{life >> 28:08x}-{life >> 12 & 0xFFFF:04x}-8{life & 0xFFF:03x}-"

    def uuid(self, sequence: int) -> str:
        """Of a flow."""
        return f"{self._prefix}{0x8000 | sequence >> 48 & 0x3FFF:04x}-{sequence & (1 << 48) - 1:012x}"

    def sequence(self, uuid: str) -> int | None:
        """The flow that a uuid names; None if it is none of this process's."""
        text = uuid.lower()
        if not text.startswith(self._prefix):
            return None
        try:
            number = int(text[len(self._prefix) :].replace("-", ""), 16)
        except ValueError:
            return None
        sequence = number & (1 << 62) - 1
        return sequence if self.uuid(sequence) == text else None


@dataclass(frozen=True)
class FlowTables:
    """What rows name. Rows of another origin (history kept on disk) come with tables of their own."""

    node_name: str  # <cluster>/<node>, or <node> in the cluster `default`
    ends: Ends = field(default_factory=Ends)
    rules: Rules = field(default_factory=Rules)
    l7: L7Entries = field(default_factory=L7Entries)
    interfaces: Interfaces = field(default_factory=Interfaces)
    node_labels: NodeLabels = field(default_factory=NodeLabels)
    uuids: Uuids = field(default_factory=Uuids)


def node_name(cluster: str, node: str) -> str:
    """A node as flows, peers and relays name it."""
    return node if cluster in ("", "default") else f"{cluster}/{node}"
