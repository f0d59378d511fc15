"""Security identities: numbers that stand for a set of labels (facts: Cilium's numbering).

Table: `identities` (written by policy; the reserved ones are always in it).
"""

from __future__ import annotations

import enum

from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec


class Reserved(enum.IntEnum):
    """Reserved identities; the member's name in lower case with dashes is the label `reserved:<name>`."""

    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10

    @property
    def label(self) -> str:
        """The label that this identity carries, as `reserved:remote-node`."""
        return f"reserved:{self.name.lower().replace('_', '-')}"


CLUSTER_SCOPE = range(256, 65536)
"""Identities of pods, the same on every node of a cluster."""
LOCAL_SCOPE = range(0x01000001, 0x02000000)
"""Identities of CIDRs and FQDN selectors: of one node, never propagated."""


class Identity(Row, frozen=True):
    """A number and the labels that it stands for. Key: id."""

    id: int
    labels: tuple[str, ...]  # source:key=value, sorted; of a local-scope identity also the labels of its selectors


IDENTITIES = TableSpec(
    "identities", Identity, key=("id",), durability=Durability.COMMIT, doc="Identity numbers and their labels."
)
