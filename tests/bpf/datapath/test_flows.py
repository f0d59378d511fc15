"""Flows: who may begin one, how it is remembered, and when it is judged anew."""

from __future__ import annotations

import pytest
from ciliate.model.conntrack import ConntrackState, Leg
from ciliate.model.event import EventKind, EventVerdict, Point, TraceReason
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, FREE, PODS, Node

A, B, C = PODS[:3]
TCP, UDP = 6, 17


def connect(node: Node, family: Family, sport: int = 40000, dport: int = 80) -> None:
    """An established connection of A to B."""
    for source, destination, ports, flags in (
        (A, B, (sport, dport), "S"),
        (B, A, (dport, sport), "SA"),
        (A, B, (sport, dport), "A"),
    ):
        outcome = node.send(source, family.tcp(source, destination, *ports, flags))
        assert outcome.to == destination.id


def test_a_connection_is_remembered_at_its_syn_ack(node: Node, family: Family) -> None:
    syn = node.send(A, family.tcp(A, B))
    assert syn.to == B.id
    assert not node.flows() and not node.flows("conntrack_new")
    syn_ack = node.send(B, family.tcp(B, A, 80, 40000, "SA"))
    assert syn_ack.to == A.id
    ((key, entry),) = node.flows()
    assert key["leg"] == Leg.BOTH
    assert (key["port_a"], key["port_b"]) == (40000, 80)
    assert entry["origin"] == 0 and entry["state"] == ConntrackState.ESTABLISHED
    assert list(entry["endpoint"]) == [1, 2] and list(entry["identity"]) == [1001, 1002]
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id
    assert list(node.flow()["packets"]) == [1, 1]


def test_a_first_packet_has_one_event_with_both_verdicts(node: Node, family: Family) -> None:
    event = node.send(A, family.tcp(A, B)).event
    assert event["kind"] == EventKind.VERDICT and event["point"] == Point.TO_ENDPOINT
    assert event["verdicts"] == EventVerdict.EGRESS | EventVerdict.INGRESS
    assert (event["source_endpoint"], event["destination_endpoint"]) == (1, 2)
    assert (event["source_identity"], event["destination_identity"]) == (1001, 1002)
    assert (event["source_port"], event["destination_port"]) == (40000, 80)
    assert (event["rule_set_egress"], event["rule_set_ingress"]) == (1, 1)
    assert (event["match_egress"], event["match_ingress"]) == (4, 4)
    assert event["ct_state"] == TraceReason.NEW and event["tcp_flags"] == 0x02
    assert bytes(event["source_mac"]).hex(":") == A.mac


def test_an_established_flow_is_told_at_new_flags_and_each_interval(node: Node, family: Family) -> None:
    connect(node, family)
    quiet = [node.send(A, family.tcp(A, B, flags="A")) for _ in range(5)]
    assert not any(len(outcome.events) for outcome in quiet)
    node.change_flow(event_seen=0)
    event = node.send(A, family.tcp(A, B, flags="A")).event
    assert event["kind"] == EventKind.TRACE and event["ct_state"] == TraceReason.ESTABLISHED
    assert event["packets"] == 7
    fin = node.send(B, family.tcp(B, A, 80, 40000, "FA")).event
    assert fin["ct_state"] == TraceReason.REPLY and fin["verdicts"] & EventVerdict.REPLY
    assert (fin["source_identity"], fin["destination_identity"]) == (1002, 1001)
    assert not len(node.send(B, family.tcp(B, A, 80, 40000, "FA")).events)


def test_denied_at_egress_and_at_ingress_are_told_apart(node: Node, family: Family) -> None:
    node.apply(A, egress=DENY_ALL)
    egress = node.send(A, family.tcp(A, B))
    assert egress.to is None and egress.reason == DropReason.POLICY_DENIED
    assert egress.event["direction"] == Direction.EGRESS
    node.apply(A)
    node.apply(B, ingress=DENY_ALL)
    ingress = node.send(A, family.tcp(A, B))
    assert ingress.to is None and ingress.reason == DropReason.POLICY_DENIED
    assert ingress.event["direction"] == Direction.INGRESS


def test_replies_need_no_rule(node: Node, family: Family) -> None:
    node.apply(B, egress=DENY_ALL)
    node.apply(A, ingress=DENY_ALL)
    connect(node, family)
    assert node.send(B, family.tcp(B, A, 80, 40000, "PA", b"data")).to == A.id
    assert node.send(B, family.tcp(B, A, 80, 40001, "PA", b"data")).reason == DropReason.POLICY_DENIED


def test_a_reset_of_an_unremembered_syn_reaches_its_sender(node: Node, family: Family) -> None:
    node.apply(B, egress=DENY_ALL)
    node.apply(A, ingress=DENY_ALL)
    node.send(A, family.tcp(A, B))
    assert node.send(B, family.tcp(B, A, 80, 40000, "RA")).to == A.id
    assert not node.flows()


def test_an_unasked_syn_ack_needs_an_allowed_syn(node: Node, family: Family) -> None:
    node.apply(A, egress=DENY_ALL)
    assert node.send(B, family.tcp(B, A, 80, 40000, "SA")).reason == DropReason.POLICY_DENIED
    assert not node.flows()


def test_a_syn_from_the_answering_end_is_a_new_flow(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(A, ingress=DENY_ALL)
    assert node.send(B, family.tcp(B, A, 80, 40000, "S")).reason == DropReason.POLICY_DENIED
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id
    node.apply(A)
    assert node.send(B, family.tcp(B, A, 80, 40000, "S")).to == A.id
    assert node.flow()["origin"] == 0
    assert node.send(A, family.tcp(A, B, flags="SA")).to == B.id
    assert node.flow()["origin"] == 1


def test_states_of_a_connection(node: Node, family: Family) -> None:
    connect(node, family)
    node.send(A, family.tcp(A, B, flags="FA"))
    assert node.flow()["state"] == ConntrackState.ESTABLISHED  # half closed: the other end may go on for long
    node.send(B, family.tcp(B, A, 80, 40000, "FA"))
    assert node.flow()["state"] == ConntrackState.CLOSING
    reopened = node.send(A, family.tcp(A, B))
    assert reopened.event["ct_state"] == TraceReason.REOPENED
    assert node.flow()["state"] == ConntrackState.NEW
    node.send(B, family.tcp(B, A, 80, 40000, "SA"))
    assert node.flow()["state"] == ConntrackState.ESTABLISHED
    node.send(B, family.tcp(B, A, 80, 40000, "R"))
    assert node.flow()["state"] == ConntrackState.CLOSING


def test_udp_waits_in_the_lru_table_until_it_is_answered(node: Node, family: Family) -> None:
    assert node.send(A, family.udp(A, B)).to == B.id
    assert not node.flows() and node.flow("conntrack_new")["state"] == ConntrackState.NEW
    assert node.send(A, family.udp(A, B)).to == B.id
    assert node.send(B, family.udp(B, A, 53, 40000)).to == A.id
    assert not node.flows("conntrack_new")
    entry = node.flow()
    assert entry["state"] == ConntrackState.ESTABLISHED and list(entry["packets"]) == [2, 1]


def test_a_mid_stream_segment_waits_too(node: Node, family: Family) -> None:
    assert node.send(A, family.tcp(A, B, flags="PA")).to == B.id
    assert node.flow("conntrack_new")["origin"] == 0
    node.apply(B, egress=DENY_ALL)
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id
    assert node.flow()["state"] == ConntrackState.ESTABLISHED


def test_a_bump_judges_established_flows_anew(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(B, ingress=DENY_ALL)
    assert node.send(A, family.tcp(A, B, flags="A")).reason == DropReason.POLICY_DENIED
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).reason == DropReason.POLICY_DENIED
    node.apply(B)
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id


def test_a_denied_flow_is_allowed_again_by_a_new_entry_without_a_bump(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(B, ingress=FREE)
    assert node.send(A, family.tcp(A, B, flags="A")).reason == DropReason.POLICY_DENIED
    node.rule(FREE, direction=Direction.INGRESS, peer=A.identity, rule_set=33)
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id
    assert node.flow()["rule_set"][1] == 33


def test_a_write_without_a_bump_does_not_touch_established_flows(node: Node, family: Family) -> None:
    connect(node, family)
    node.policies[B.id]["ingress"] = DENY_ALL
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id


@pytest.mark.parametrize("which", ["source", "destination", "source's address", "destination's address"])
def test_the_flow_class_cache_ends_with_any_of_four_bumps(node: Node, family: Family, which: str) -> None:
    assert node.send(A, family.udp(A, B, 1000)).to == B.id
    node.policies[B.id]["ingress"] = DENY_ALL
    assert node.send(A, family.udp(A, B, 1001)).to == B.id, "the class is cached"
    pod = A if which.startswith("source") else B
    if which.endswith("address"):
        node.bump_peer(family.of(pod))
    else:
        node.bump(pod)
    assert node.send(A, family.udp(A, B, 1002)).reason == DropReason.POLICY_DENIED


def test_the_flow_class_cache_keeps_no_denial(node: Node, family: Family) -> None:
    node.apply(B, ingress=FREE)
    assert node.send(A, family.udp(A, B)).reason == DropReason.POLICY_DENIED
    node.rule(FREE, direction=Direction.INGRESS, peer=A.identity)
    assert node.send(A, family.udp(A, B)).to == B.id


def test_the_flow_class_cache_tells_ports_and_protocols_apart(node: Node, family: Family) -> None:
    node.apply(B, ingress=FREE)
    node.rule(FREE, direction=Direction.INGRESS, protocol=UDP, port=53)
    assert node.send(A, family.udp(A, B)).to == B.id
    assert node.send(A, family.udp(A, B, dport=54)).reason == DropReason.POLICY_DENIED
    assert node.send(A, family.tcp(A, B, dport=53)).reason == DropReason.POLICY_DENIED
    assert node.send(C, family.udp(C, B)).to == B.id


def test_an_endpoint_id_given_out_anew_is_not_the_old_flow_s_end(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(A, ingress=DENY_ALL)
    node.add(B, generation=2)
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).reason == DropReason.POLICY_DENIED
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id
    assert list(node.flow("conntrack_new")["generation"]) == [1, 2]


def test_a_packet_for_an_endpoint_that_is_gone_is_dropped(node: Node, family: Family) -> None:
    node.endpoints[B.id]["flags"] = 0
    assert node.send(A, family.udp(A, B)).reason == DropReason.STALE_OR_UNROUTABLE_IP


def test_an_endpoint_without_policy_is_not_ready(node: Node, family: Family) -> None:
    node.apply(B, ingress=0)
    assert node.send(A, family.tcp(A, B)).reason == DropReason.ENDPOINT_NOT_READY
    node.apply(B)
    node.apply(A, egress=0)
    assert node.send(A, family.tcp(A, B)).reason == DropReason.ENDPOINT_NOT_READY


def test_a_flow_that_is_over_is_not_continued(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(A, ingress=DENY_ALL)
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id
    node.change_flow(seen=0)
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).reason == DropReason.POLICY_DENIED
