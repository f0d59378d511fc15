"""One direction's verdict: which entries are found, and which of two wins (facts/policy.md, sections 10 and 11)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ciliate.model.event import MatchType
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY, FREE, PLAIN_ALLOW, PODS, Node

A, B = PODS[:2]
TCP, UDP = 6, 17
PEER = A.identity
LESS = 1 << 8
"""One step down in priority."""


@dataclass(frozen=True)
class Case:
    """Ingress entries of B's policy, and what a SYN from A to port 80 gets: reason, rule set, match type."""

    entries: list[dict[str, Any]]
    rule_set: int
    match: MatchType = MatchType.NONE
    reason: DropReason | None = None
    proxied: bool = field(default=False)


def entry(rule_set: int, **fields: Any) -> dict[str, Any]:
    return {"rule_set": rule_set} | fields


CASES = {
    "no entry": Case([], 0, reason=DropReason.POLICY_DENIED),
    "any peer, any port": Case([entry(5)], 5, MatchType.ALL),
    "any peer, any port of the protocol": Case([entry(5, protocol=TCP)], 5, MatchType.PROTO_ONLY),
    "any peer, this port": Case([entry(5, protocol=TCP, port=80)], 5, MatchType.L4_ONLY),
    "this peer, any port": Case([entry(5, peer=PEER)], 5, MatchType.L3_ONLY),
    "this peer, any port of the protocol": Case([entry(5, peer=PEER, protocol=TCP)], 5, MatchType.L3_PROTO),
    "this peer, this port": Case([entry(5, peer=PEER, protocol=TCP, port=80)], 5, MatchType.L3_L4),
    "another peer": Case([entry(5, peer=PEER + 1)], 0, reason=DropReason.POLICY_DENIED),
    "another port": Case([entry(5, protocol=TCP, port=81)], 0, reason=DropReason.POLICY_DENIED),
    "another protocol": Case([entry(5, protocol=UDP, port=80)], 0, reason=DropReason.POLICY_DENIED),
    "a range that holds the port": Case([entry(5, protocol=TCP, port=80, bits=14)], 5, MatchType.L4_ONLY),
    "a range beside the port": Case([entry(5, protocol=TCP, port=84, bits=14)], 0, reason=DropReason.POLICY_DENIED),
    "within one peer the longest prefix is found": Case(
        [entry(5, peer=PEER), entry(6, peer=PEER, protocol=TCP, port=80)], 6, MatchType.L3_L4
    ),
    "both allow: the longer prefix": Case([entry(5, peer=PEER), entry(6, protocol=TCP, port=80)], 6, MatchType.L4_ONLY),
    "both allow, equally long: the peer's": Case(
        [entry(5, peer=PEER, protocol=TCP), entry(6, protocol=TCP)], 5, MatchType.L3_PROTO
    ),
    "deny beats a longer allow": Case(
        [entry(5, deny=True), entry(6, peer=PEER, protocol=TCP, port=80)],
        5,
        MatchType.ALL,
        DropReason.POLICY_DENY,
    ),
    "the peer's deny beats any peer's allow": Case(
        [entry(5, peer=PEER, deny=True), entry(6, protocol=TCP, port=80)], 5, MatchType.L3_ONLY, DropReason.POLICY_DENY
    ),
    "equal precedence: deny wins": Case(
        [entry(5, peer=PEER, precedence=DENY), entry(6, deny=True, precedence=DENY)],
        6,
        MatchType.ALL,
        DropReason.POLICY_DENY,
    ),
    "an allow of higher priority beats a deny": Case(
        [entry(5, peer=PEER), entry(6, deny=True, precedence=DENY - LESS)], 5, MatchType.L3_ONLY
    ),
    "a redirect beats a plain allow": Case(
        [entry(5, peer=PEER, protocol=TCP, port=80), entry(6, proxy_port=10000)], 6, MatchType.ALL, proxied=True
    ),
    "authentication of the chosen entry": Case(
        [entry(5, peer=PEER, auth=2)], 5, MatchType.L3_ONLY, DropReason.AUTH_REQUIRED
    ),
    "authentication of the other, if the chosen leaves it open": Case(
        [entry(5, peer=PEER, protocol=TCP, port=80), entry(6, auth=2)], 5, MatchType.L3_L4, DropReason.AUTH_REQUIRED
    ),
    "explicitly no authentication": Case(
        [entry(5, peer=PEER, protocol=TCP, port=80, explicit=True), entry(6, auth=2)], 5, MatchType.L3_L4
    ),
    "authentication of a less important entry": Case(
        [entry(5, peer=PEER), entry(6, auth=2, precedence=PLAIN_ALLOW - LESS)], 5, MatchType.L3_ONLY
    ),
}


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.name.lower())
@pytest.mark.parametrize("name", CASES)
def test_which_entry_decides(node: Node, family: Family, name: str, direction: Direction) -> None:
    case = CASES[name]
    sender, receiver = (A, B) if direction is Direction.INGRESS else (B, A)
    for fields in case.entries:
        node.rule(FREE, direction=direction, **fields)
    if direction is Direction.INGRESS:
        node.apply(receiver, ingress=FREE)
    else:
        node.apply(sender, egress=FREE)
    outcome = node.send(sender, family.tcp(sender, receiver))
    assert outcome.reason == case.reason
    assert outcome.to == (None if case.reason else "host" if case.proxied else receiver.id)
    side = direction.name.lower()
    assert outcome.event[f"rule_set_{side}"] == case.rule_set
    assert outcome.event[f"match_{side}"] == case.match


def test_icmp_is_judged_by_its_type(node: Node, family: Family) -> None:
    node.rule(FREE, direction=Direction.INGRESS, protocol=family.icmp, port=family.echo_request)
    node.apply(B, ingress=FREE)
    assert node.send(A, family.echo(A, B)).to == B.id
    node.rule(FREE + 1, direction=Direction.INGRESS, protocol=family.icmp, port=family.echo_request + 1)
    node.apply(B, ingress=FREE + 1)
    assert node.send(A, family.echo(A, B, 8)).reason == DropReason.POLICY_DENIED


def test_directions_and_policies_are_apart(node: Node, family: Family) -> None:
    node.rule(FREE, direction=Direction.EGRESS)
    node.apply(B, ingress=FREE)
    assert node.send(A, family.tcp(A, B)).reason == DropReason.POLICY_DENIED
