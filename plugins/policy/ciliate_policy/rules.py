"""Policy objects as the engine works with them: frozen, checked, free of the manifests' spellings."""

from __future__ import annotations

from ciliate.model.base import IPNetwork
from ciliate.model.policy import DEFAULT_DENY, Direction, Rule
from ciliate.review import Finding, Severity
from msgspec import Struct

from ciliate_policy.selectors import LabelSelector

PORT_MAX = 65535
ANY_PROTOCOL = 0


class PortMatch(Struct, frozen=True, gc=False):
    """Ports of one protocol (0: any, then all ports). ICMP: the type is the port. `name`: at the destination."""

    protocol: int = ANY_PROTOCOL
    first: int = 0
    last: int = PORT_MAX
    name: str = ""

    def __str__(self) -> str:
        protocol = PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        if self.name:
            return f"{self.name}/{protocol}"
        if (self.first, self.last) == (0, PORT_MAX):
            return protocol
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{ports}/{protocol}"


PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
ICMP, ICMPV6 = 1, 58
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()} | {0: "ANY", ICMP: "ICMP", ICMPV6: "ICMPv6"}

Excepts = tuple[IPNetwork, ...]


class CidrSelector(Struct, frozen=True, gc=False):
    """Addresses outside the cluster: each member is what it covers less its exceptions; any member will do.

    All CIDRs of one rule element make one selector, so that a long list costs one identity and not one each.
    """

    networks: tuple[tuple[IPNetwork, Excepts], ...] = ()
    groups: tuple[tuple[str, Excepts], ...] = ()  # names of CiliumCIDRGroups
    group_selectors: tuple[tuple[LabelSelector, Excepts], ...] = ()  # over the groups' labels


Peer = LabelSelector | CidrSelector


class Element(Struct, frozen=True, gc=False):
    """One element of an ingress, ingressDeny, egress or egressDeny list: peers AND ports."""

    rule: Rule
    direction: Direction
    deny: bool
    peers: tuple[Peer, ...] | None  # None: everybody; empty: nobody
    ports: tuple[PortMatch, ...] | None  # None: all; empty: none


class PolicyRule(Struct, frozen=True, gc=False):
    """One `spec`: whom it is about, whether it switches default deny on (ingress, egress), and its elements.

    subject None: it is about no endpoint here (a node selector).
    """

    subject: LabelSelector | None
    default_deny: tuple[bool, bool]
    elements: tuple[Element, ...]
    spec_index: int = -1  # as in Rule


class PolicyKey(Struct, frozen=True, order=True, gc=False):
    """Which object: as in the table `policy_revisions`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Policy(Struct, frozen=True, gc=False):
    """One object, read. An invalid one has no rules: it is not enforced."""

    key: PolicyKey
    uid: str
    generation: int
    rules: tuple[PolicyRule, ...]
    findings: tuple[Finding, ...] = ()

    def default_rules(self, rule: PolicyRule) -> tuple[Rule | None, Rule | None]:
        """What stands for a spec's default deny, by direction; None: the spec doesn't switch it on."""
        one, other = (
            Rule(
                kind=self.key.kind, namespace=self.key.namespace, name=self.key.name, uid=self.uid,
                generation=self.generation, direction=direction.name.lower(), index=DEFAULT_DENY,
                spec_index=rule.spec_index,
            )
            if rule.default_deny[direction] else None
            for direction in (Direction.INGRESS, Direction.EGRESS)
        )  # fmt: skip
        return one, other

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Paths of elements that select nothing here."""
        return tuple(found.path for found in self.findings if found.severity is Severity.UNSUPPORTED)

    @property
    def invalid(self) -> str:
        """Why the object is refused whole; empty if it isn't."""
        return "; ".join(f"{one.path}: {one.message}" for one in self.findings if one.severity is Severity.INVALID)


class CidrGroup(Struct, frozen=True, gc=False):
    """A CiliumCIDRGroup: its labels are asked by cidrGroupSelector."""

    name: str
    labels: tuple[str, ...]
    networks: tuple[IPNetwork, ...]
