"""Policy as the data path holds it, and the names of the rules behind every verdict.

Tables, written by policy: `rule_sets` (durable; an id is never given to other rules), `policy_revisions`.
Map: `policy`, one longest-prefix map for the node.
"""

from __future__ import annotations

import enum

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec
from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec


class Direction(enum.IntEnum):
    """Of the policy that judges: ingress to, or egress from, the endpoint."""

    INGRESS = 0
    EGRESS = 1


DEFAULT_DENY = -1
"""Rule.index of a spec's default deny."""


class Rule(Row, frozen=True):
    """One rule of a policy object, by its address: kind, namespace, name, and where in its spec.

    A spec also denies by default, in a direction, what no rule allows: that is the index DEFAULT_DENY.
    """

    kind: str  # CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, NetworkPolicy; "" for a default
    namespace: str
    name: str  # of a default: allow-all, default-deny, allow-localhost-ingress
    uid: str
    generation: int
    direction: str  # ingress, ingressDeny, egress, egressDeny; "" for a default
    index: int  # of the element in that list; or DEFAULT_DENY, then direction is ingress or egress
    spec_index: int = -1  # -1: `spec`; else the element of `specs`

    @property
    def path(self) -> str:
        """Where the rule is: `CiliumNetworkPolicy default/web spec.ingress[0]`; of a default, its name.

        Of a spec's default deny: `CiliumNetworkPolicy default/web (default deny, ingress)`.
        """
        if not self.kind:
            return f"{self.name} ({self.direction})" if self.direction else self.name
        owner = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {owner} {self.place}"

    @property
    def place(self) -> str:
        """Where in its object the rule is: `spec.ingress[0]`, `(default deny, ingress)`; of a default, its name."""
        if not self.kind:
            return self.name
        if self.index == DEFAULT_DENY:
            spec = "" if self.spec_index < 0 else f"specs[{self.spec_index}] "
            return f"{spec}(default deny, {self.direction})"
        spec = "spec" if self.spec_index < 0 else f"specs[{self.spec_index}]"
        return f"{spec}.{self.direction}[{self.index}]"


class RuleSet(Row, frozen=True):
    """The rules that made one policy-map value. Key: id."""

    id: int
    rules: tuple[Rule, ...]


class PolicyRevision(Row, frozen=True):
    """How far this node has realised one policy object. Key: kind, namespace, name."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    revision: int
    enforced: bool
    unsupported: tuple[str, ...] = ()  # paths of elements that select nothing here, as spec.egress[0].toFQDNs
    invalid: str = ""  # why the object is refused whole, or empty
    selected: int = 0  # endpoints of this node that it selects


RULE_SETS = TableSpec(
    "rule_sets", RuleSet, key=("id",), durability=Durability.COMMIT, doc="Rule-set ids and the rules behind them."
)
POLICY_REVISIONS = TableSpec(
    "policy_revisions",
    PolicyRevision,
    key=("kind", "namespace", "name"),
    durability=Durability.SECOND,
    doc="What this node has realised of each policy object.",
)

POLICY_KEY = np.dtype(
    [
        ("prefixlen", "<u4"),  # bits after this field: 72 (policy, identity, direction) + 0, 8 (protocol), 8 + n (port)
        ("policy", "<u4"),
        ("identity", "<u4"),  # of the peer; 0: any
        ("direction", "u1"),
        ("protocol", "u1"),
        ("port", ">u2"),  # ICMP: the type
    ]
)
POLICY_PREFIX = 72
POLICY_PREFIX_FULL = 96

POLICY_ENTRY = np.dtype(
    [
        ("precedence", "<u4"),
        ("rule_set", "<u4"),
        ("proxy_port", ">u2"),
        ("flags", "u1"),
        ("auth_type", "u1"),
        ("prefixlen", "u1"),  # protocol and port bits of the key: 0, 8, 9 to 24
        ("pad", "u1", 3),
    ]
)
POLICY_DENY = 1 << 0
POLICY_AUTH_EXPLICIT = 1 << 2

POLICY_MAP = MapSpec(
    "policy",
    MapKind.LPM_TRIE,
    POLICY_KEY,
    POLICY_ENTRY,
    1_000_000,
    "Policy id, peer identity, direction, protocol and port prefix to a verdict and its rule set.",
    MapFlag.NO_PREALLOC,
)
