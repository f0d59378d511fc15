"""Between pods and what is behind the host: the node itself, and the world."""

from __future__ import annotations

from ciliate.model.conntrack import Leg
from ciliate.model.event import EventVerdict, Point, TraceReason
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from scapy.layers.l2 import Ether

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, FREE, HOST_MAC, PODS, Node

A, B = PODS[:2]
WORLD = {4: 9, 6: 10}


def test_a_pod_reaches_the_host(node: Node, family: Family) -> None:
    outcome = node.send(A, family.tcp(A, family.host))
    assert outcome.to == "host" and outcome.frame[Ether].dst == HOST_MAC
    event = outcome.event
    assert event["point"] == Point.TO_HOST and event["destination_identity"] == 1
    assert event["verdicts"] == EventVerdict.EGRESS and event["destination_endpoint"] == 0
    node.send_from_host(family.tcp(family.host, A, 80, 40000, "SA"))
    assert node.send(A, family.tcp(A, family.host, flags="FA")).event["point"] == Point.TO_HOST


def test_a_pod_reaches_the_world_under_its_identity(node: Node, family: Family) -> None:
    event = node.send(A, family.tcp(A, family.world)).event
    assert event["point"] == Point.TO_STACK
    assert event["destination_identity"] == WORLD[family.version]
    node.apply(A, egress=FREE)
    assert node.send(A, family.tcp(A, family.world)).reason == DropReason.POLICY_DENIED
    node.rule(FREE, direction=Direction.EGRESS, peer=WORLD[family.version])
    assert node.send(A, family.tcp(A, family.world)).to == "host"


def test_the_hop_limit_is_left_alone(node: Node, family: Family) -> None:
    frame = node.send(A, family.udp(A, family.world)).frame
    assert bytes(frame)[14:] == bytes(family.udp(A, family.world))
    frame = node.send(A, family.udp(A, B)).frame
    assert bytes(frame)[14:] == bytes(family.udp(A, B))


def test_the_host_reaches_a_pod_by_ordinary_rules(node: Node, family: Family) -> None:
    outcome = node.send_from_host(family.tcp(family.host, A))
    assert outcome.to == A.id
    assert outcome.event["source_identity"] == 1 and outcome.event["verdicts"] == EventVerdict.INGRESS
    node.apply(A, ingress=FREE)
    assert node.send_from_host(family.tcp(family.host, A)).reason == DropReason.POLICY_DENIED
    node.rule(FREE, direction=Direction.INGRESS, peer=1)
    assert node.send_from_host(family.tcp(family.host, A)).to == A.id


def test_replies_from_behind_the_host_find_their_flow(node: Node, family: Family) -> None:
    node.apply(A, ingress=DENY_ALL)
    for outside in (family.host, family.world):
        node.send(A, family.tcp(A, outside))
        syn_ack = node.send_from_host(family.tcp(outside, A, 80, 40000, "SA"))
        assert syn_ack.to == A.id
        assert syn_ack.event["ct_state"] == TraceReason.REPLY
        assert node.send(A, family.tcp(A, outside, flags="A")).to == "host"
        assert node.send_from_host(family.tcp(outside, A, 80, 40000, "PA", b"x")).to == A.id
        assert node.send_from_host(family.tcp(outside, A, 80, 40009, "PA", b"x")).reason == DropReason.POLICY_DENIED
    assert {int(key["leg"]) for key, _ in node.flows()} == {Leg.BOTH}


def test_replies_to_what_is_behind_the_host_find_theirs(node: Node, family: Family) -> None:
    node.apply(A, egress=DENY_ALL)
    node.send_from_host(family.tcp(family.world, A, 50000, 80))
    assert node.send(A, family.tcp(A, family.world, 80, 50000, "SA")).to == "host"
    assert node.send_from_host(family.tcp(family.world, A, 50000, 80, "A")).to == A.id
    assert node.send(A, family.tcp(A, family.world, 80, 50000, "A")).to == "host"
    node.send_from_host(family.udp(family.world, A, 50000, 80))
    assert node.send(A, family.udp(A, family.world, 80, 50000)).to == "host"


def test_what_is_for_no_pod_is_dropped(node: Node, family: Family) -> None:
    outcome = node.send_from_host(family.tcp(family.host, family.world))
    assert outcome.reason == DropReason.UNKNOWN_L3_TARGET_ADDRESS
    assert outcome.event["point"] == Point.FROM_HOST


def test_an_identity_that_changes_is_judged_anew(node: Node, family: Family) -> None:
    node.apply(A, egress=FREE)
    node.rule(FREE, direction=Direction.EGRESS, peer=WORLD[family.version])
    node.send(A, family.udp(A, family.world))
    node.know(family.world, 600)
    assert node.send(A, family.udp(A, family.world)).reason == DropReason.POLICY_DENIED
    node.rule(FREE, direction=Direction.EGRESS, peer=600, rule_set=66)
    assert node.send(A, family.udp(A, family.world)).to == "host"
    assert node.flow("conntrack_new")["rule_set"][0] == 66


def test_a_pod_can_not_pass_for_another_from_behind_the_host(node: Node, family: Family) -> None:
    """The host may send with a pod's address (it translates, it proxies), but is then judged as that pod."""
    node.apply(B, ingress=FREE)
    node.rule(FREE, direction=Direction.INGRESS, peer=1)
    assert node.send_from_host(family.udp(A, B)).reason == DropReason.POLICY_DENIED
    node.rule(FREE, direction=Direction.INGRESS, peer=A.identity)
    assert node.send_from_host(family.udp(A, B)).to == B.id
