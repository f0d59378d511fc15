"""ARP and neighbour discovery are answered in the kernel: whatever isn't the pod's own is at its gateway's MAC."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from tests.bpf.datapath.node import PODS, REDIRECT, Node

A, B = PODS[:2]


def answered(node: Node, frame: Ether) -> Ether | None:
    """What goes back to A; None if there is no answer."""
    result = node.programs.program("from_pod").test_run(bytes(frame), node.context(A.ifindex))
    return Ether(result.data) if result.retval == REDIRECT else None


@pytest.mark.parametrize("target", ["169.254.1.1", B.ipv4, "192.0.2.7"])
def test_arp_for_anybody_is_answered(node: Node, target: str) -> None:
    answer = answered(node, Ether(src=A.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=A.mac, psrc=A.ipv4, pdst=target))
    assert answer is not None
    assert (answer.dst, answer.src) == (A.mac, A.host_mac)
    arp = answer[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (2, A.host_mac, target, A.mac, A.ipv4)


@pytest.mark.parametrize(
    "arp",
    [
        ARP(hwsrc=A.mac, psrc="0.0.0.0", pdst=A.ipv4),
        ARP(hwsrc=A.mac, psrc=A.ipv4, pdst=A.ipv4),
        ARP(hwsrc=A.mac, psrc="169.254.1.9", pdst=A.ipv4),
        ARP(hwsrc=A.mac, psrc="0.0.0.0", pdst="10.0.0.9"),
        ARP(op=2, hwsrc=A.mac, psrc=A.ipv4, pdst="10.0.0.9"),
    ],
    ids=["probe of its own", "announcement", "its own", "probe", "reply"],
)
def test_arp_about_oneself_is_not_answered(node: Node, arp: ARP) -> None:
    assert answered(node, Ether(src=A.mac) / arp) is None


@pytest.mark.parametrize("target", ["fe80::1", B.ipv6, "2001:db8::7"])
@pytest.mark.parametrize("source", [A.ipv6, "fe80::5"])
@pytest.mark.parametrize("option", [True, False], ids=["with option", "without option"])
def test_solicitations_for_anybody_are_answered(node: Node, target: str, source: str, option: bool) -> None:
    ask = IPv6(src=source, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=target)
    if option:
        ask = ask / ICMPv6NDOptSrcLLAddr(lladdr=A.mac)
    answer = answered(node, Ether(src=A.mac, dst="33:33:ff:00:00:01") / ask)
    assert answer is not None
    assert (answer.dst, answer.src) == (A.mac, A.host_mac)
    ip, told = answer[IPv6], answer[ICMPv6ND_NA]
    assert (ip.src, ip.dst, ip.hlim, ip.plen) == (target, source, 255, 32)
    assert (told.tgt, told.S, told.O, told.R) == (target, 1, 1, 0)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == A.host_mac
    checksum = told.cksum
    del told.cksum
    assert Ether(bytes(answer))[ICMPv6ND_NA].cksum == checksum
    assert len(answer) == 86


@pytest.mark.parametrize(
    ("source", "target"),
    [("::", A.ipv6), ("::", "fe80::5"), (A.ipv6, A.ipv6), ("fe80::5", "fe80::5"), ("fe80::5", A.ipv6)],
)
def test_duplicate_address_detection_finds_nobody(node: Node, source: str, target: str) -> None:
    ask = IPv6(src=source, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=target)
    assert answered(node, Ether(src=A.mac) / ask) is None


@pytest.mark.parametrize(
    "ask",
    [
        IPv6(src="fe80::5", dst="ff02::2") / ICMPv6ND_RS(),
        IPv6(src="fe80::5", dst="ff02::16") / IPv6ExtHdrHopByHop() / ICMPv6MLReport2(),
    ],
    ids=["router solicitation", "multicast report"],
)
def test_what_every_host_sends_at_its_start_ends_here_in_silence(node: Node, ask: IPv6) -> None:
    outcome = node.send(A, ask)
    assert outcome.to is None and not len(outcome.events)


def test_what_the_host_says_to_everyone_is_left_to_its_stack(node: Node) -> None:
    ask = IPv6(src="fe80::a", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=A.ipv6)
    assert node.send_from_host(ask).to == "stack"
    assert node.send_from_host(Ether(type=0x0806) / ARP(pdst=A.ipv4)).to == "stack"
    assert node.send_from_host(Ether(type=0x88CC) / Raw(bytes(20))).to == "stack"
