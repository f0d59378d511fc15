"""Extension headers, IPv4 options and fragments: the transport header is found, or the packet is dropped by name."""

from __future__ import annotations

import pytest
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from scapy.layers.inet import IP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    fragment6,
)
from scapy.layers.ipsec import AH
from scapy.packet import Packet, Raw

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, FREE, PODS, Node

A, B = PODS[:2]
TO_B = IPv6(src=A.ipv6, dst=B.ipv6)
DATAGRAM = UDP(sport=40000, dport=53) / Raw(b"x")
HOP, OPTIONS, ROUTING = IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting


def only_dns(node: Node) -> None:
    """B takes UDP to port 53 alone, so that what passes has had its ports read."""
    node.rule(FREE, direction=Direction.INGRESS, protocol=17, port=53)
    node.apply(B, ingress=FREE)


@pytest.mark.parametrize(
    "packet",
    [
        TO_B / HOP() / DATAGRAM,
        TO_B / HOP(options=PadN(optdata=bytes(200))) / DATAGRAM,
        TO_B / HOP() / OPTIONS() / ROUTING(addresses=["fd00::9"]) / OPTIONS() / DATAGRAM,
        TO_B / IPv6ExtHdrFragment(id=9) / DATAGRAM,
        TO_B / AH(spi=1, seq=1, payloadlen=4, icv=bytes(12), nh=17) / DATAGRAM,
        TO_B / HOP() / OPTIONS() / OPTIONS() / OPTIONS() / OPTIONS() / OPTIONS() / OPTIONS() / DATAGRAM,
        IP(src=A.ipv4, dst=B.ipv4, options=[IPOption_NOP()] * 40) / DATAGRAM,
    ],
    ids=["hop-by-hop", "a long one", "four", "an atomic fragment", "authentication", "seven", "IPv4 with options"],
)
def test_ports_behind_other_headers_are_found(node: Node, packet: Packet) -> None:
    only_dns(node)
    outcome = node.send(A, packet)
    assert outcome.to == B.id
    assert outcome.event["destination_port"] == 53
    packet[UDP].dport = 54
    assert node.send(A, packet).reason == DropReason.POLICY_DENIED


def test_too_many_extension_headers_are_refused(node: Node) -> None:
    packet = TO_B
    for _ in range(12):
        packet = packet / OPTIONS()
    assert node.send(A, packet / DATAGRAM).reason == DropReason.INVALID_IPV6_EXTENSION_HEADER


def fragments_of(family: Family, dport: int = 53) -> list[Packet]:
    """A datagram of 2,000 bytes in three fragments."""
    if family.version == 4:
        whole = IP(src=A.ipv4, dst=B.ipv4, id=77) / UDP(sport=40000, dport=dport) / Raw(bytes(2000))
        return list(fragment(whole, 800))
    whole = TO_B / IPv6ExtHdrFragment(id=77) / UDP(sport=40000, dport=dport) / Raw(bytes(2000))
    return list(fragment6(whole, 900))


def test_later_fragments_follow_their_first(node: Node, family: Family) -> None:
    only_dns(node)
    parts = fragments_of(family)
    assert len(parts) >= 3
    assert [node.send(A, part).to for part in parts] == [B.id] * len(parts)
    assert node.flow("conntrack_new")["packets"][0] == len(parts)


def test_fragments_of_a_denied_datagram_are_denied(node: Node, family: Family) -> None:
    only_dns(node)
    assert {node.send(A, part).reason for part in fragments_of(family, 54)} == {DropReason.POLICY_DENIED}


def test_a_later_fragment_before_its_first_is_dropped(node: Node, family: Family) -> None:
    parts = fragments_of(family)
    assert node.send(A, parts[1]).reason == DropReason.FRAGMENT_NOT_FOUND
    assert node.send(A, parts[0]).to == B.id
    assert node.send(A, parts[1]).to == B.id


def test_fragments_of_two_datagrams_are_apart(node: Node, family: Family) -> None:
    node.send(A, fragments_of(family)[0])
    other = fragments_of(family)[1]
    if family.version == 4:
        other.id = 78
    else:
        other[IPv6ExtHdrFragment].id = 78
    assert node.send(A, other).reason == DropReason.FRAGMENT_NOT_FOUND


def test_fragments_of_an_answered_flow_reach_its_origin(node: Node, family: Family) -> None:
    node.send(B, family.udp(B, A, 53, 40000))
    node.apply(B, ingress=DENY_ALL)
    parts = fragments_of(family)
    node.bump(B)
    assert [node.send(A, part).to for part in parts] == [B.id] * len(parts)
