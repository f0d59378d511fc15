"""Drop reasons that a packet can provoke, by a table: what is sent, and which reason its event and counter name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ciliate.model.endpoint import POLICY_AUDIT
from ciliate.model.event import EventKind, EventVerdict, Point, SourceFile
from ciliate.model.ipcache import IPCACHE_UNRESOLVED
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLQuery2,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from tests.bpf.datapath.families import FAMILIES, Family
from tests.bpf.datapath.node import DENY_ALL, DEVICES, FREE, HOST_MAC, PODS, Node

A, B, C = PODS[:3]
V4, V6 = FAMILIES
FRAME = Ether(src=A.mac, dst=A.host_mac)
SHORT_IPV4 = bytes(FRAME / V4.tcp(A, B))
SHORT_IPV6 = bytes(FRAME / V6.tcp(A, B))


SMALLEST = {0x0800: 19, 0x86DD: 39}
"""A test run refuses what has no whole IP header."""


def patched(frame: bytes, at: int, value: bytes) -> bytes:
    """A frame with some bytes replaced; `at` counts from the network header."""
    return frame[: 14 + at] + value + frame[14 + at + len(value) :]


MALFORMED: dict[str, tuple[Packet | bytes, DropReason]] = {
    "another pod's MAC": (Ether(src=B.mac, dst=A.host_mac) / V4.tcp(A, B), DropReason.INVALID_SOURCE_MAC),
    "another pod's MAC in ARP": (Ether(src=B.mac) / ARP(pdst="10.0.0.9"), DropReason.INVALID_SOURCE_MAC),
    "another pod's IPv4 address": (V4.tcp(C, B), DropReason.INVALID_SOURCE_IP),
    "another pod's IPv6 address": (V6.tcp(C, B), DropReason.INVALID_SOURCE_IP),
    "no IPv4 address": (V4.udp("0.0.0.0", B), DropReason.INVALID_SOURCE_IP),
    "a link-local address": (V6.udp("fe80::5", B), DropReason.INVALID_SOURCE_IP),
    "version 6 in IPv4's ether type": (patched(SHORT_IPV4, 0, b"\x65"), DropReason.INVALID_PACKET),
    "an IPv4 header of 16 bytes": (patched(SHORT_IPV4, 0, b"\x44"), DropReason.INVALID_PACKET),
    "an IPv4 total length beyond the frame": (patched(SHORT_IPV4, 2, b"\x40\x00"), DropReason.INVALID_PACKET),
    "an IPv4 total length within the header": (patched(SHORT_IPV4, 2, b"\x00\x10"), DropReason.INVALID_PACKET),
    "version 4 in IPv6's ether type": (patched(SHORT_IPV6, 0, b"\x40"), DropReason.INVALID_PACKET),
    "an IPv6 payload beyond the frame": (patched(SHORT_IPV6, 4, b"\x40\x00"), DropReason.INVALID_PACKET),
    "an IPv6 payload of no length": (patched(SHORT_IPV6, 4, bytes(2)), DropReason.INVALID_PACKET),
    "an IPv4 packet of no length": (patched(SHORT_IPV4, 2, bytes(2)), DropReason.INVALID_PACKET),
    "half a TCP header": (SHORT_IPV4[:44].replace(b"\x00\x28", b"\x00\x1e", 1), DropReason.CT_INVALID_HEADER),
    "GRE": (IP(src=A.ipv4, dst=B.ipv4) / GRE() / IP(), DropReason.CT_UNKNOWN_L4_PROTOCOL),
    "IPv4 in IPv6": (IPv6(src=A.ipv6, dst=B.ipv6) / IP(), DropReason.CT_UNKNOWN_L4_PROTOCOL),
    "ICMP in IPv6": (IPv6(src=A.ipv6, dst=B.ipv6, nh=1) / ICMP(), DropReason.CT_UNKNOWN_L4_PROTOCOL),
    "ICMPv6 in IPv4": (IP(src=A.ipv4, dst=B.ipv4, proto=58) / Raw(bytes(8)), DropReason.CT_UNKNOWN_L4_PROTOCOL),
    "an unknown ether type": (Ether(src=A.mac, type=0x88CC) / Raw(bytes(40)), DropReason.UNSUPPORTED_L3_PROTOCOL),
    "a VLAN tag": (Ether(src=A.mac) / Dot1Q(vlan=5) / V4.tcp(A, B), DropReason.UNSUPPORTED_L2_PROTOCOL),
    "IPv4 multicast": (V4.udp(A, "224.0.0.251"), DropReason.UNKNOWN_L3_TARGET_ADDRESS),
    "IPv4 broadcast": (V4.udp(A, "255.255.255.255"), DropReason.UNKNOWN_L3_TARGET_ADDRESS),
    "IPv6 multicast": (V6.udp(A, "ff02::fb"), DropReason.UNKNOWN_L3_TARGET_ADDRESS),
    "no next header": (IPv6(src=A.ipv6, dst=B.ipv6, nh=59), DropReason.INVALID_IPV6_EXTENSION_HEADER),
    "ESP": (IPv6(src=A.ipv6, dst=B.ipv6, nh=50) / Raw(bytes(32)), DropReason.INVALID_IPV6_EXTENSION_HEADER),
    "a truncated extension header": (
        IPv6(src=A.ipv6, dst=B.ipv6, nh=0) / Raw(b"\x06\x00"),
        DropReason.INVALID_IPV6_EXTENSION_HEADER,
    ),
    "an extension header longer than the packet": (
        IPv6(src=A.ipv6, dst=B.ipv6, nh=60) / Raw(b"\x3c\xff" + bytes(30)),
        DropReason.INVALID_IPV6_EXTENSION_HEADER,
    ),
    "a later IPv4 fragment alone": (
        IP(src=A.ipv4, dst=B.ipv4, frag=10, proto=17, id=5) / Raw(bytes(16)),
        DropReason.FRAGMENT_NOT_FOUND,
    ),
    "a later IPv6 fragment alone": (
        IPv6(src=A.ipv6, dst=B.ipv6) / IPv6ExtHdrFragment(offset=10, id=5, nh=17) / Raw(bytes(16)),
        DropReason.FRAGMENT_NOT_FOUND,
    ),
    "a router's advertisement": (
        IPv6(src="fe80::5", dst="ff02::1") / ICMPv6ND_RA(),
        DropReason.FORBIDDEN_ICMPV6_MESSAGE,
    ),
    "an advertisement": (IPv6(src=A.ipv6, dst=B.ipv6) / ICMPv6ND_NA(), DropReason.FORBIDDEN_ICMPV6_MESSAGE),
    "a redirect": (IPv6(src=A.ipv6, dst=B.ipv6) / ICMPv6ND_Redirect(), DropReason.FORBIDDEN_ICMPV6_MESSAGE),
    "a multicast query": (
        IPv6(src="fe80::5", dst="ff02::1") / IPv6ExtHdrHopByHop() / ICMPv6MLQuery2(),
        DropReason.FORBIDDEN_ICMPV6_MESSAGE,
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_no_pod_may_send_is_dropped_by_name(node: Node, name: str) -> None:
    packet, reason = MALFORMED[name]
    before = node.counted(reason, Direction.EGRESS)
    outcome = node.send(A, packet)
    assert outcome.to is None and outcome.reason == reason
    assert outcome.event["kind"] == EventKind.DROP and outcome.event["point"] == Point.FROM_ENDPOINT
    assert outcome.event["source_endpoint"] == A.id
    assert outcome.event["file"] in list(SourceFile)[1:] and outcome.event["line"] > 0
    assert node.counted(reason, Direction.EGRESS) == before + 1


def test_a_pod_of_one_family_has_no_address_in_the_other(node: Node) -> None:
    node.endpoints[A.id]["ipv6"] = 0
    assert node.send(A, V6.udp("::", B)).reason == DropReason.INVALID_SOURCE_IP
    assert node.send(A, V6.udp(A, B)).reason == DropReason.INVALID_SOURCE_IP
    node.endpoints[A.id]["ipv4"] = 0
    assert node.send(A, V4.udp("0.0.0.0", B)).reason == DropReason.INVALID_SOURCE_IP


def deny_rule(node: Node) -> None:
    node.rule(FREE, direction=Direction.INGRESS)
    node.rule(FREE, direction=Direction.INGRESS, protocol=6, deny=True, rule_set=44)


def destination_gone(node: Node) -> None:
    node.apply(B)
    node.endpoints[B.id]["flags"] = 0


VERDICTS: dict[str, tuple[Callable[[Node], None], DropReason]] = {
    "nothing allows it": (lambda node: None, DropReason.POLICY_DENIED),
    "a deny rule": (deny_rule, DropReason.POLICY_DENY),
    "authentication is wanted": (
        lambda node: node.rule(FREE, direction=Direction.INGRESS, auth=1),
        DropReason.AUTH_REQUIRED,
    ),
    "no policy yet": (lambda node: node.apply(B, ingress=0), DropReason.ENDPOINT_NOT_READY),
    "the destination is gone": (
        destination_gone,
        DropReason.STALE_OR_UNROUTABLE_IP,
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_what_policy_does_not_allow_is_dropped_by_name(node: Node, family: Family, name: str) -> None:
    prepare, reason = VERDICTS[name]
    node.apply(B, ingress=FREE)
    prepare(node)
    outcome = node.send(A, family.tcp(A, B))
    assert outcome.to is None and outcome.reason == reason
    if reason == DropReason.POLICY_DENY:
        assert outcome.event["rule_set_ingress"] == 44
        assert outcome.event["match_ingress"] == 6


def test_auditing_lets_pass_what_is_denied_and_says_so(node: Node, family: Family) -> None:
    node.apply(B, ingress=DENY_ALL, flags=POLICY_AUDIT)
    outcome = node.send(A, family.tcp(A, B))
    assert outcome.to == B.id
    assert outcome.event["verdicts"] == EventVerdict.EGRESS | EventVerdict.INGRESS | EventVerdict.AUDITED
    assert node.send(B, family.tcp(B, A, 80, 40000, "SA")).to == A.id
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id
    node.apply(B, ingress=0, flags=POLICY_AUDIT)
    assert node.send(A, family.udp(A, B)).reason == DropReason.ENDPOINT_NOT_READY


def test_an_unresolved_address_is_not_world(node: Node, family: Family) -> None:
    prefix, unknown = ("10.1.0.0/16", "10.1.2.3") if family.version == 4 else ("fd01::/64", "fd01::3")
    node.know(prefix, 2, IPCACHE_UNRESOLVED)
    assert node.send(A, family.tcp(A, unknown)).reason == DropReason.UNRESOLVED_ADDRESS
    assert node.send_from_host(family.tcp(unknown, A)).reason == DropReason.UNRESOLVED_ADDRESS
    node.know(unknown, 500)
    resolved = node.send(A, family.tcp(A, unknown))
    assert resolved.to == "host" and resolved.event["destination_identity"] == 500


def test_a_flow_outlives_the_news_of_its_peer(node: Node, family: Family) -> None:
    prefix, peer = ("10.1.0.0/16", "10.1.2.3") if family.version == 4 else ("fd01::/64", "fd01::3")
    node.know(prefix, 2, IPCACHE_UNRESOLVED)
    node.know(peer, 500)
    node.send(A, family.udp(A, peer))
    node.forget(peer)
    assert node.send(A, family.udp(A, peer)).to == "host"
    assert node.flow("conntrack_new")["identity"][1] == 500
    assert node.send(A, family.udp(A, peer, 40001)).reason == DropReason.UNRESOLVED_ADDRESS


def test_an_interface_of_no_endpoint_gets_nothing_through(node: Node, family: Family) -> None:
    frame = bytes(FRAME / family.tcp(A, B))
    for ifindex in (20, max(DEVICES)):
        assert node.run("from_pod", ifindex, frame).reason == DropReason.UNKNOWN_ENDPOINT


def test_a_proxy_for_what_no_proxy_takes_is_refused(node: Node, family: Family) -> None:
    node.apply(A, egress=FREE)
    node.rule(FREE, direction=Direction.EGRESS, proxy_port=10000)
    sctp = family.ip(A, B) / SCTP(sport=1, dport=2) / Raw(bytes(8))
    assert node.send(A, sctp).reason == DropReason.PROXY_NOT_SUPPORTED


def test_sctp_is_judged_like_udp(node: Node, family: Family) -> None:
    node.apply(B, ingress=FREE)
    node.rule(FREE, direction=Direction.INGRESS, protocol=132, port=2)
    assert node.send(A, family.ip(A, B) / SCTP(sport=1, dport=2)).to == B.id
    assert node.send(A, family.ip(A, B) / SCTP(sport=1, dport=3)).reason == DropReason.POLICY_DENIED


def test_a_flood_of_like_drops_is_counted_whole_and_told_in_part(node: Node, family: Family) -> None:
    node.apply(A, egress=DENY_ALL)
    before = node.counted(DropReason.POLICY_DENIED, Direction.EGRESS)
    told = sum(len(node.send(A, family.tcp(A, B, 50001)).events) for _ in range(40))
    assert told == 16
    assert node.counted(DropReason.POLICY_DENIED, Direction.EGRESS) == before + 40
    assert len(node.send(A, family.tcp(A, B, 50002)).events) == 1


@pytest.mark.parametrize(
    "packet",
    [
        FRAME / V4.tcp(A, B, payload=b"abc"),
        FRAME / V6.udp(A, B),
        FRAME / IPv6(src=A.ipv6, dst=B.ipv6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / Raw(b"x"),
        FRAME / V4.echo(A, B),
        FRAME / IP(src=A.ipv4, dst=B.ipv4) / ICMP(type=3, code=3) / V4.udp(B, A),
        FRAME / V6.ip(A, B) / Raw(b"\x3a\x00"),
        FRAME / ARP(psrc=A.ipv4, pdst="10.0.0.9"),
        FRAME / IP(src=A.ipv4, dst=B.ipv4, options=[]) / TCP(options=[("MSS", 1400)]),
    ],
    ids=lambda packet: packet.summary(),
)
def test_a_packet_cut_at_any_length_is_dropped_by_name(node: Node, packet: Packet) -> None:
    whole = bytes(packet)
    for length in range(15 + SMALLEST.get(packet.type, 0), len(whole)):
        before = sum(node.drops().values())
        assert node.send(A, whole[:length]).to is None, length
        assert sum(node.drops().values()) == before + 1, length
        from_host = node.send_from_host(Ether(src=HOST_MAC, dst=HOST_MAC, type=packet.type) / Raw(whole[14:length]))
        assert from_host.to in (None, "stack"), length
