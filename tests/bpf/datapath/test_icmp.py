"""ICMP: echoes belong to their requester, errors to the flow that they quote."""

from __future__ import annotations

from ciliate.model.event import EventKind, TraceReason
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, FREE, PODS, Node, Pod
from tests.bpf.datapath.test_flows import connect

A, B, C = PODS[:3]


def unreachable(family: Family, source: Pod | str, destination: Pod | str, quoted: Packet, size: int = 500) -> Packet:
    """An error from one end to another about a packet."""
    inside = Raw(bytes(quoted)[:size])
    if family.version == 4:
        return family.ip(source, destination) / ICMP(type=3, code=3) / inside
    return family.ip(source, destination) / ICMPv6DestUnreach(code=4) / inside


def test_a_ping_is_answered_without_a_rule(node: Node, family: Family) -> None:
    node.apply(B, egress=DENY_ALL)
    node.apply(A, ingress=DENY_ALL)
    request = node.send(A, family.echo(A, B))
    assert request.to == B.id and request.event["source_port"] == family.echo_request
    ((key, _),) = node.flows("conntrack_new")
    assert sorted((int(key["port_a"]), int(key["port_b"]))) == [0, 7]
    assert node.send(B, family.echo(B, A, reply=True)).to == A.id
    assert node.flow()["origin"] == 0


def test_each_end_of_a_ping_is_judged_for_its_own_requests(node: Node, family: Family) -> None:
    node.send(A, family.echo(A, B))
    node.send(B, family.echo(B, A, reply=True))
    node.apply(A, ingress=DENY_ALL)
    assert node.send(B, family.echo(B, A)).reason == DropReason.POLICY_DENIED
    assert node.send(A, family.echo(A, B)).to == B.id


def test_an_unasked_reply_is_judged_and_makes_no_flow(node: Node, family: Family) -> None:
    assert node.send(B, family.echo(B, A, reply=True)).to == A.id
    assert not node.flows() and not node.flows("conntrack_new")
    node.apply(B, egress=DENY_ALL)
    assert node.send(B, family.echo(B, A, reply=True)).reason == DropReason.POLICY_DENIED


def test_an_error_about_a_tracked_flow_is_related(node: Node, family: Family) -> None:
    node.send(A, family.udp(A, B))
    node.apply(A, ingress=DENY_ALL)
    node.apply(B, egress=DENY_ALL)
    outcome = node.send(B, unreachable(family, B, A, family.udp(A, B)))
    assert outcome.to == A.id
    assert outcome.event["kind"] == EventKind.TRACE and outcome.event["ct_state"] == TraceReason.RELATED
    assert node.send(B, unreachable(family, B, A, family.udp(A, B, 40001))).reason == DropReason.POLICY_DENIED


def test_an_error_may_quote_eight_bytes_of_the_transport(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(A, ingress=DENY_ALL)
    quoted = family.tcp(A, B, flags="A")
    size = (20 if family.version == 4 else 40) + 8
    assert node.send(B, unreachable(family, B, A, quoted, size)).to == A.id
    assert node.send(B, unreachable(family, B, A, quoted, size - 1)).reason == DropReason.CT_INVALID_HEADER


def test_an_error_about_an_echo_reaches_the_requester(node: Node, family: Family) -> None:
    node.send(A, family.echo(A, B))
    node.apply(A, ingress=DENY_ALL)
    assert node.send(B, unreachable(family, B, A, family.echo(A, B))).to == A.id


def test_an_error_about_a_syn_passes_if_the_syn_does(node: Node, family: Family) -> None:
    node.apply(A, ingress=DENY_ALL)
    node.apply(B, egress=DENY_ALL)
    assert node.send(B, unreachable(family, B, A, family.tcp(A, B))).to == A.id
    node.apply(A, ingress=DENY_ALL, egress=DENY_ALL)
    assert node.send(B, unreachable(family, B, A, family.tcp(A, B))).reason == DropReason.POLICY_DENIED


def test_an_error_for_another_than_the_quoted_sender_is_judged_alone(node: Node, family: Family) -> None:
    node.send(A, family.udp(A, B))
    node.apply(C, ingress=DENY_ALL)
    assert node.send(B, unreachable(family, B, C, family.udp(A, B))).reason == DropReason.POLICY_DENIED


def test_an_error_from_a_pod_about_others_flow_is_judged_alone(node: Node, family: Family) -> None:
    node.send(A, family.udp(A, B))
    node.apply(A, ingress=DENY_ALL)
    assert node.send(C, unreachable(family, C, A, family.udp(A, B))).reason == DropReason.POLICY_DENIED


def test_an_error_about_a_flow_denied_since_is_dropped(node: Node, family: Family) -> None:
    node.send(A, family.udp(A, B))
    node.apply(B, ingress=DENY_ALL)
    assert node.send(B, unreachable(family, B, A, family.udp(A, B))).reason == DropReason.POLICY_DENIED


def test_an_error_judges_a_stale_flow_as_what_it_is(node: Node, family: Family) -> None:
    node.rule(FREE, direction=Direction.INGRESS, protocol=17, port=53)
    node.apply(B, ingress=FREE)
    node.send(A, family.udp(A, B))
    node.bump(B)
    assert node.send(B, unreachable(family, B, A, family.udp(A, B))).to == A.id


def test_an_error_of_a_router_outside_reaches_the_pod(node: Node, family: Family) -> None:
    node.send(A, family.udp(A, family.world))
    node.apply(A, ingress=DENY_ALL)
    about = family.udp(A, family.world)
    assert node.send_from_host(unreachable(family, family.other_world, A, about)).to == A.id
    stray = family.udp(A, family.world, 40001)
    assert node.send_from_host(unreachable(family, family.other_world, A, stray)).reason == DropReason.POLICY_DENIED


def test_packet_too_big_is_such_an_error(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(A, ingress=DENY_ALL)
    quoted = Raw(bytes(family.tcp(A, B, flags="A")))
    if family.version == 4:
        packet = IP(src=B.ipv4, dst=A.ipv4) / ICMP(type=3, code=4, nexthopmtu=1400) / quoted
    else:
        packet = IPv6(src=B.ipv6, dst=A.ipv6) / ICMPv6PacketTooBig(mtu=1400) / quoted
    assert node.send(B, packet).to == A.id


def test_other_messages_are_judged_each(node: Node, family: Family) -> None:
    message = 13 if family.version == 4 else 139
    node.rule(FREE, direction=Direction.INGRESS, protocol=family.icmp, port=message)
    node.apply(B, ingress=FREE)
    field = {"proto": 1} if family.version == 4 else {"nh": 58}
    packet = family.ip(A, B, **field) / Raw(bytes([message]) + bytes(19))
    assert node.send(A, packet).to == B.id
    assert not node.flows("conntrack_new")
