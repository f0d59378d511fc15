"""One tuple that crosses the node twice has two verdicts, and they don't mix: proxies, and what the host sends back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ciliate.model.conntrack import CONNTRACK_FROM_PROXY, Leg
from ciliate.model.event import Point
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from scapy.packet import Packet

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, FREE, PODS, Node, Pod
from tests.bpf.datapath.test_icmp import unreachable

A, B = PODS[:2]
PROXY = 10001
TO_PROXY = 0x0200
FROM_EGRESS_PROXY = 0x0B00 | A.identity << 16
FROM_INGRESS_PROXY = 0x0A00 | A.identity << 16


def proxied(node: Node, direction: Direction) -> None:
    """A's egress, or B's ingress, goes through a proxy."""
    node.rule(FREE, direction=direction, proxy_port=PROXY, rule_set=50)
    if direction is Direction.EGRESS:
        node.apply(A, egress=FREE)
    else:
        node.apply(B, ingress=FREE)


def test_a_redirected_flow_goes_to_the_proxy_with_its_port(node: Node, family: Family) -> None:
    proxied(node, Direction.EGRESS)
    for flags in ("S", "A", "PA"):
        outcome = node.send(A, family.tcp(A, B, flags=flags))
        assert outcome.to == "host" and outcome.mark == TO_PROXY | PROXY << 16
        if flags == "S":
            assert outcome.event["proxy_port"] == PROXY and outcome.event["point"] == Point.TO_PROXY
            assert outcome.event["rule_set_egress"] == 50
    ((key, entry),) = node.flows("conntrack_new")
    assert key["leg"] == Leg.EGRESS and list(entry["endpoint"]) == [A.id, 0]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_both_legs_of_a_proxied_flow_are_apart(node: Node, family: Family, transport: str) -> None:
    proxied(node, Direction.EGRESS)
    make: Callable[..., Packet] = family.tcp if transport == "tcp" else family.udp

    def packet(source: Pod, destination: Pod, *ports: int, flags: str) -> Packet:
        return make(source, destination, *ports, **({"flags": flags} if transport == "tcp" else {}))

    to_b, to_a = (A, B, 40000, 80), (B, A, 80, 40000)
    assert node.send(A, packet(*to_b, flags="S")).to == "host"
    second = node.send_from_host(packet(*to_b, flags="S"), FROM_EGRESS_PROXY)
    assert second.to == B.id and second.event["source_identity"] == A.identity
    answer = node.send(B, packet(*to_a, flags="SA"))
    assert answer.to == "host" and answer.mark == TO_PROXY, "the proxy's own connection is answered to the proxy"
    last = node.send_from_host(packet(*to_a, flags="SA"))
    assert last.to == A.id
    assert node.send(A, packet(*to_b, flags="A")).mark == TO_PROXY | PROXY << 16
    assert node.send_from_host(packet(*to_b, flags="A"), FROM_EGRESS_PROXY).to == B.id
    legs = {Leg(int(key["leg"])): entry for key, entry in node.flows()}
    assert set(legs) == {Leg.EGRESS, Leg.INGRESS}
    assert list(legs[Leg.EGRESS]["endpoint"]) == [A.id, 0]
    assert list(legs[Leg.INGRESS]["endpoint"]) == [0, B.id]
    assert legs[Leg.INGRESS]["flags"] & CONNTRACK_FROM_PROXY


def test_each_leg_has_its_own_verdict(node: Node, family: Family) -> None:
    proxied(node, Direction.EGRESS)
    node.apply(B, ingress=DENY_ALL)
    assert node.send(A, family.udp(A, B)).to == "host", "the proxy may answer by itself"
    assert node.send_from_host(family.udp(A, B), FROM_EGRESS_PROXY).reason == DropReason.POLICY_DENIED
    node.apply(B)
    assert node.send_from_host(family.udp(A, B), FROM_EGRESS_PROXY).to == B.id
    node.apply(A, egress=DENY_ALL)
    assert node.send(A, family.udp(A, B)).reason == DropReason.POLICY_DENIED
    assert node.send_from_host(family.udp(A, B), FROM_EGRESS_PROXY).to == B.id
    assert node.send(B, family.udp(B, A, 53, 40000)).to == "host"


def test_a_bump_of_the_far_end_leaves_the_near_leg_valid(node: Node, family: Family) -> None:
    proxied(node, Direction.EGRESS)
    node.send(A, family.udp(A, B))
    node.policies[A.id]["egress"] = DENY_ALL
    node.bump(B)
    assert node.send(A, family.udp(A, B)).to == "host"
    node.bump(A)
    assert node.send(A, family.udp(A, B)).reason == DropReason.POLICY_DENIED


def test_an_ingress_proxy_s_second_half_is_not_redirected_again(node: Node, family: Family) -> None:
    proxied(node, Direction.INGRESS)
    first = node.send(A, family.tcp(A, B))
    assert first.to == "host" and first.mark == TO_PROXY | PROXY << 16
    second = node.send_from_host(family.tcp(A, B), FROM_INGRESS_PROXY)
    assert second.to == B.id and second.event["proxy_port"] == 0
    node.bump(B)
    assert node.send_from_host(family.tcp(A, B, flags="A"), FROM_INGRESS_PROXY).to == B.id


def test_an_egress_proxy_s_second_half_may_meet_an_ingress_proxy(node: Node, family: Family) -> None:
    proxied(node, Direction.EGRESS)
    node.rule(FREE + 1, direction=Direction.INGRESS, proxy_port=PROXY + 1)
    node.apply(B, ingress=FREE + 1)
    node.send(A, family.tcp(A, B))
    second = node.send_from_host(family.tcp(A, B), FROM_EGRESS_PROXY)
    assert second.to == "host" and second.mark == TO_PROXY | PROXY + 1 << 16


def test_the_proxy_s_identity_counts_when_it_has_an_address_of_its_own(node: Node, family: Family) -> None:
    node.rule(FREE, direction=Direction.INGRESS, peer=A.identity)
    node.apply(B, ingress=FREE)
    packet = family.tcp(family.host, B, 50000)
    assert node.send_from_host(packet).reason == DropReason.POLICY_DENIED
    assert node.send_from_host(packet, FROM_EGRESS_PROXY).to == B.id
    other = family.tcp(family.host, B, 50001)
    assert node.send_from_host(other, 0x0B00 | 4321 << 16).reason == DropReason.POLICY_DENIED


def test_what_the_host_translated_and_sent_back_is_answered_to_the_host(node: Node, family: Family) -> None:
    """kube-proxy's way: A to a service's address through the stack, which sends it on to B under A's address."""
    assert node.send(A, family.tcp(A, family.service)).to == "host"
    assert node.send_from_host(family.tcp(A, B)).to == B.id
    assert node.send(B, family.tcp(B, A, 80, 40000, "SA")).to == "host"
    assert node.send_from_host(family.tcp(family.service, A, 80, 40000, "SA")).to == A.id
    assert node.send(A, family.tcp(A, family.service, flags="A")).to == "host"
    assert node.send_from_host(family.tcp(A, B, flags="A")).to == B.id


def test_a_tuple_equal_after_the_host_s_translation_keeps_its_own_verdict(node: Node, family: Family) -> None:
    node.apply(A, egress=FREE)
    node.rule(FREE, direction=Direction.EGRESS, peer=A.identity + 7)
    assert node.send(A, family.udp(A, B)).reason == DropReason.POLICY_DENIED
    assert node.send_from_host(family.udp(A, B)).to == B.id
    assert node.send(A, family.udp(A, B)).reason == DropReason.POLICY_DENIED, "the other crossing was allowed, not this"
    assert node.send(B, family.udp(B, A, 53, 40000)).to == "host"
    assert node.send(A, family.udp(A, B)).reason == DropReason.POLICY_DENIED


def test_a_direct_flow_and_one_through_the_host_are_both_known(node: Node, family: Family) -> None:
    node.send(A, family.udp(A, B))
    node.send_from_host(family.udp(A, B))
    legs = {Leg(int(key["leg"])) for key, _ in node.flows("conntrack_new")}
    assert legs == {Leg.BOTH, Leg.INGRESS}


def test_cached_classes_of_two_crossings_are_apart(node: Node, family: Family) -> None:
    """Judging A's leg anew by a packet from the host must not vouch for what the host sends on to B."""
    proxied(node, Direction.EGRESS)
    node.send(A, family.udp(A, B))
    node.send_from_host(family.udp(B, A, 53, 40000))
    node.apply(B, ingress=DENY_ALL)
    node.bump(A)
    assert node.send_from_host(family.udp(B, A, 53, 40000)).to == A.id
    assert node.send_from_host(family.udp(A, B)).reason == DropReason.POLICY_DENIED
    assert node.send_from_host(family.tcp(B, A, 53, 40000, "SA")).reason == DropReason.POLICY_DENIED
    assert node.send_from_host(family.tcp(A, B, 40000, 53)).reason == DropReason.POLICY_DENIED


def test_an_ingress_proxy_s_second_half_passes_an_entry_that_redirects(node: Node, family: Family) -> None:
    proxied(node, Direction.EGRESS)
    node.rule(FREE + 1, direction=Direction.INGRESS, proxy_port=PROXY + 1)
    node.apply(B, ingress=FREE + 1)
    node.send(A, family.tcp(A, B))
    assert node.send_from_host(family.tcp(A, B), FROM_EGRESS_PROXY).to == "host"
    assert node.send_from_host(family.tcp(A, B), FROM_INGRESS_PROXY).to == B.id


def test_an_error_about_a_leg_goes_to_who_is_at_its_other_end(node: Node, family: Family) -> None:
    proxied(node, Direction.EGRESS)
    node.send(A, family.udp(A, B))
    node.send_from_host(family.udp(A, B), FROM_EGRESS_PROXY)
    node.apply(B, egress=DENY_ALL)
    assert node.send(B, unreachable(family, B, A, family.udp(A, B))).to == "host"
