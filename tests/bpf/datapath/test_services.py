"""Service translation: there and back, with checksums; one backend a flow; ports where tuples clash."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ciliate.model import conntrack
from ciliate.model.conntrack import CONNTRACK_LOOPBACK
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from ciliate.model.service import SERVICE_DIRECT
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, FREE, PODS, Node, packed
from tests.bpf.datapath.test_icmp import unreachable

A, B, C = PODS[:3]
VIP_PORT, PORT = 8080, 80
PROTOCOLS = {"tcp": 6, "udp": 17}


def body(packet: Packet) -> bytes:
    """The packet from its network header on, all checksums computed."""
    return bytes(Ether(bytes(packet)).payload) if packet.haslayer(Ether) else bytes(packet)


def one_backend(node: Node, family: Family, protocol: int = 6) -> None:
    node.service(family.service, VIP_PORT, protocol, (family.of(B), PORT))


def test_a_connection_to_a_service_reaches_a_backend_and_its_replies_the_client(node: Node, family: Family) -> None:
    one_backend(node, family)
    syn = node.send(A, family.tcp(A, family.service, dport=VIP_PORT))
    assert syn.to == B.id and body(syn.frame) == bytes(family.tcp(A, B, dport=PORT))
    event = syn.event
    assert bytes(event["destination"]) == packed(family.of(B))
    assert bytes(event["original_destination"]) == packed(family.service)
    assert (event["destination_port"], event["original_destination_port"]) == (PORT, VIP_PORT)
    answer = node.send(B, family.tcp(B, A, PORT, 40000, "SA"))
    assert answer.to == A.id and body(answer.frame) == bytes(family.tcp(family.service, A, VIP_PORT, 40000, "SA"))
    data = node.send(A, family.tcp(A, family.service, dport=VIP_PORT, flags="PA", payload=b"hello"))
    assert body(data.frame) == bytes(family.tcp(A, B, dport=PORT, flags="PA", payload=b"hello"))
    assert len(node.flows()) == 1 and node.flow()["service"] == 7
    assert len(node.map("service_flows").items()[0]) == 1 and len(node.map("service_new").items()[0]) == 0


def test_datagrams_to_a_service(node: Node, family: Family) -> None:
    one_backend(node, family, 17)
    there = node.send(A, family.udp(A, family.service, dport=VIP_PORT))
    assert there.to == B.id and body(there.frame) == bytes(family.udp(A, B, dport=PORT))
    back = node.send(B, family.udp(B, A, PORT, 40000))
    assert back.to == A.id and body(back.frame) == bytes(family.udp(family.service, A, VIP_PORT, 40000))


def test_a_udp_checksum_of_zero_stays_zero(node: Node, family: Family) -> None:
    one_backend(node, family, 17)
    packet = family.ip(A, family.service) / UDP(sport=40000, dport=VIP_PORT, chksum=0) / Raw(b"x")
    assert node.send(A, packet).frame[UDP].chksum == 0


def test_policy_sees_the_backend(node: Node, family: Family) -> None:
    one_backend(node, family)
    node.apply(B, ingress=FREE)
    node.rule(FREE, direction=Direction.INGRESS, protocol=6, port=PORT, peer=A.identity)
    assert node.send(A, family.tcp(A, family.service, dport=VIP_PORT)).to == B.id
    node.apply(B, ingress=DENY_ALL)
    assert node.send(A, family.tcp(A, family.service, 40001, VIP_PORT)).reason == DropReason.POLICY_DENIED


def test_a_service_without_backends_is_named(node: Node, family: Family) -> None:
    node.service(family.service, VIP_PORT, 6)
    assert node.send(A, family.tcp(A, family.service, dport=VIP_PORT)).reason == DropReason.SERVICE_BACKEND_NOT_FOUND


def test_a_backend_behind_the_host(node: Node, family: Family) -> None:
    node.service(family.service, VIP_PORT, 6, (family.world, PORT))
    assert node.send(A, family.tcp(A, family.service, dport=VIP_PORT)).to == "host"
    answer = node.send_from_host(family.tcp(family.world, A, PORT, 40000, "SA"))
    assert answer.to == A.id
    assert body(answer.frame) == bytes(family.tcp(family.service, A, VIP_PORT, 40000, "SA"))


def test_a_flow_keeps_its_backend(node: Node, family: Family) -> None:
    node.service(family.service, VIP_PORT, 17, (family.of(B), PORT), (family.of(C), PORT))
    flows = {port: node.send(A, family.udp(A, family.service, port, VIP_PORT)).to for port in range(40000, 40032)}
    assert set(flows.values()) == {B.id, C.id}
    node.service(family.service, VIP_PORT, 17, (family.of(C), PORT), (family.of(B), PORT))
    again = {port: node.send(A, family.udp(A, family.service, port, VIP_PORT)).to for port in flows}
    assert again == flows


def test_replies_whose_service_is_gone_are_named(node: Node, family: Family) -> None:
    one_backend(node, family, 17)
    node.send(A, family.udp(A, family.service, dport=VIP_PORT))
    node.map("service_reverse").delete(7)
    assert node.send(B, family.udp(B, A, PORT, 40000)).reason == DropReason.NO_NAT_MAPPING


@pytest.mark.parametrize("transport", PROTOCOLS)
def test_a_pod_reaches_itself_through_a_service(node: Node, family: Family, transport: str) -> None:
    node.service(family.service, VIP_PORT, PROTOCOLS[transport], (family.of(A), PORT))
    node.apply(A, ingress=DENY_ALL, egress=DENY_ALL)
    make: Callable[..., Packet] = family.tcp if transport == "tcp" else family.udp
    there = node.send(A, make(A, family.service, 40000, VIP_PORT))
    assert there.to == A.id and body(there.frame) == bytes(make(family.loopback, A, 40000, PORT))
    answer = make(A, family.loopback, PORT, 40000, **({"flags": "SA"} if transport == "tcp" else {}))
    expected = make(family.service, A, VIP_PORT, 40000, **({"flags": "SA"} if transport == "tcp" else {}))
    back = node.send(A, answer)
    assert back.to == A.id and body(back.frame) == bytes(expected)
    assert node.flow()["flags"] & CONNTRACK_LOOPBACK
    node.bump(A)
    assert node.send(A, answer).to == A.id
    other = make(A, family.loopback, PORT, 41000)
    assert node.send(A, other).reason == DropReason.POLICY_DENIED, "only the hairpin's own tuple is exempt"


@pytest.mark.parametrize("transport", PROTOCOLS)
def test_a_direct_flow_s_tuple_is_not_taken_by_a_translated_one(node: Node, family: Family, transport: str) -> None:
    one_backend(node, family, PROTOCOLS[transport])
    make: Callable[..., Packet] = family.tcp if transport == "tcp" else family.udp
    plain = {"flags": "PA"} if transport == "tcp" else {}
    node.send(A, make(A, B, 40000, PORT, **plain))
    node.send(B, make(B, A, PORT, 40000, **plain))
    there = node.send(A, make(A, family.service, 40000, VIP_PORT))
    layer = TCP if transport == "tcp" else UDP
    port = there.frame[layer].sport
    assert there.to == B.id and port != 40000
    assert body(there.frame) == bytes(make(A, B, port, PORT))
    back = node.send(B, make(B, A, PORT, port, **plain))
    assert body(back.frame) == bytes(make(family.service, A, VIP_PORT, 40000, **plain))
    direct = node.send(B, make(B, A, PORT, 40000, **plain))
    assert body(direct.frame) == bytes(make(B, A, PORT, 40000, **plain)), "the direct flow's replies stay as they are"
    again = node.send(A, make(A, family.service, 40000, VIP_PORT, **plain))
    assert again.frame[layer].sport == port


@pytest.mark.parametrize("transport", PROTOCOLS)
def test_a_direct_flow_gives_way_to_a_translated_one(node: Node, family: Family, transport: str) -> None:
    one_backend(node, family, PROTOCOLS[transport])
    make: Callable[..., Packet] = family.tcp if transport == "tcp" else family.udp
    plain = {"flags": "PA"} if transport == "tcp" else {}
    layer = TCP if transport == "tcp" else UDP
    node.send(A, make(A, family.service, 40000, VIP_PORT))
    node.send(B, make(B, A, PORT, 40000, **({"flags": "SA"} if transport == "tcp" else {})))
    direct = node.send(A, make(A, B, 40000, PORT))
    port = direct.frame[layer].sport
    assert direct.to == B.id and port != 40000
    back = node.send(B, make(B, A, PORT, port, **plain))
    assert back.to == A.id and body(back.frame) == bytes(make(B, A, PORT, 40000, **plain))
    assert {int(entry["service"]) for _, entry in node.flows()} == {7, SERVICE_DIRECT}
    assert node.send(A, make(A, B, 40000, PORT, **plain)).frame[layer].sport == port
    translated = node.send(B, make(B, A, PORT, 40000, **plain))
    assert body(translated.frame) == bytes(make(family.service, A, VIP_PORT, 40000, **plain))


def test_without_a_free_port_a_flow_is_dropped_by_name(node: Node, family: Family) -> None:
    one_backend(node, family, 17)
    node.send(A, family.udp(A, B, 40000, PORT))
    ((key, entry),) = node.flows("conntrack_new")
    node.send(A, family.udp(A, family.service, 40000, VIP_PORT))  # which ports are tried, its own tells
    tries = tried_ports(node, family)
    keys = np.repeat(np.array(key, conntrack.CONNTRACK_KEY), len(tries))
    keys["port_a"] = tries
    node.map("conntrack").update_batch(keys, np.repeat(np.array(entry, conntrack.CONNTRACK_ENTRY), len(tries)))
    for name in ("service_new", "service_flows"):
        node.map(name).delete_batch(node.map(name).items()[0])
    assert node.send(A, family.udp(A, family.service, 40000, VIP_PORT)).reason == DropReason.TUPLE_CLASH


def tried_ports(node: Node, family: Family) -> list[int]:
    """The ports that are tried for this flow: 7919 apart, from the one that it got."""
    _, flows = node.map("service_new").items()
    first = int(flows[0]["source_port"])
    return [1024 + (first - 1024 + number * 7919) % (65536 - 1024) for number in range(64)]


def test_fragments_of_a_translated_datagram(node: Node) -> None:
    node.service("10.96.0.1", VIP_PORT, 17, (B.ipv4, PORT))
    whole = IP(src=A.ipv4, dst="10.96.0.1", id=77) / UDP(sport=40000, dport=VIP_PORT) / Raw(bytes(2000))
    expected = IP(src=A.ipv4, dst=B.ipv4, id=77) / UDP(sport=40000, dport=PORT) / Raw(bytes(2000))
    wanted = [bytes(part) for part in fragment(expected, 800)]
    assert [body(node.send(A, part).frame) for part in fragment(whole, 800)] == wanted


def test_nothing_is_looked_up_while_there_are_no_services(node: Node, family: Family) -> None:
    one_backend(node, family)
    node.switches[0] = 0
    assert node.send(A, family.tcp(A, family.service, dport=VIP_PORT)).to == "host"


@pytest.mark.parametrize("transport", PROTOCOLS)
def test_an_error_about_a_translated_packet_quotes_what_the_client_sent(
    node: Node, family: Family, transport: str
) -> None:
    one_backend(node, family, PROTOCOLS[transport])
    make: Callable[..., Packet] = family.tcp if transport == "tcp" else family.udp
    sent = make(A, family.service, 40000, VIP_PORT)
    seen = body(node.send(A, sent).frame)
    error = node.send(B, unreachable(family, B, A, Raw(seen)))
    assert error.to == A.id
    expected, found = bytes(unreachable(family, B, A, sent)), body(error.frame)
    assert ports_and_addresses(family, found) == ports_and_addresses(family, expected)
    assert checksum_is_right(family, error.frame)


def ports_and_addresses(family: Family, packet: bytes) -> bytes:
    """The quoted addresses and ports of an ICMP error."""
    quoted = packet[28:] if family.version == 4 else packet[48:]
    return quoted[12:24] if family.version == 4 else quoted[8:44]


def checksum_is_right(family: Family, frame: Packet) -> bool:
    """Whether the ICMP checksum, and that of a quoted IPv4 header, are what scapy computes."""
    layer = frame[ICMP] if family.version == 4 else frame[ICMPv6DestUnreach]
    if family.version == 4:
        quoted = bytes(layer.payload)[:20]
        if checksum(quoted) != 0:
            return False
        return bool(checksum(bytes(layer)) == 0)
    told = layer.cksum
    del layer.cksum
    return bool(Ether(bytes(frame))[ICMPv6DestUnreach].cksum == told)
