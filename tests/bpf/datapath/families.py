"""Packets of either family, so that each test is written once."""

from __future__ import annotations

from dataclasses import dataclass

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

from tests.bpf.datapath.node import Pod


@dataclass(frozen=True)
class Family:
    """IPv4 or IPv6: addresses of the test node's neighbours, and how packets are made."""

    version: int
    host: str
    world: str
    other_world: str
    service: str
    loopback: str
    icmp: int
    echo_request: int

    def __str__(self) -> str:
        return f"IPv{self.version}"

    def of(self, end: Pod | str) -> str:
        """The address of a pod, or the address that was given."""
        if isinstance(end, str):
            return end
        return end.ipv4 if self.version == 4 else end.ipv6

    def ip(self, source: Pod | str, destination: Pod | str, **fields: object) -> Packet:
        """An IP header."""
        kind = IP if self.version == 4 else IPv6
        return kind(src=self.of(source), dst=self.of(destination), **fields)

    def tcp(
        self, source: Pod | str, destination: Pod | str, sport: int = 40000, dport: int = 80, flags: str = "S",
        payload: bytes = b"",
    ) -> Packet:  # fmt: skip
        """A TCP segment."""
        return self.ip(source, destination) / TCP(sport=sport, dport=dport, flags=flags) / Raw(payload)

    def udp(
        self, source: Pod | str, destination: Pod | str, sport: int = 40000, dport: int = 53, payload: bytes = b"x"
    ) -> Packet:
        """A UDP datagram."""
        return self.ip(source, destination) / UDP(sport=sport, dport=dport) / Raw(payload)

    def echo(self, source: Pod | str, destination: Pod | str, identifier: int = 7, reply: bool = False) -> Packet:
        """An ICMP echo request or reply."""
        ip = self.ip(source, destination)
        if self.version == 4:
            return ip / ICMP(type=0 if reply else 8, id=identifier)
        return ip / (ICMPv6EchoReply(id=identifier) if reply else ICMPv6EchoRequest(id=identifier))


FAMILIES = [
    Family(4, "10.9.0.1", "192.0.2.1", "192.0.2.2", "10.96.0.1", "169.254.42.1", 1, 8),
    Family(6, "fd00:9::1", "2001:db8::1", "2001:db8::2", "fd00:96::1", "fdca:fe00::4201", 58, 128),
]
