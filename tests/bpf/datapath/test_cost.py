"""What a packet costs in the program alone. The gate is wide: other work shares the machine."""

from __future__ import annotations

import numpy as np
from scapy.layers.l2 import Ether

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import PODS, Node, mac_bytes
from tests.bpf.datapath.test_flows import connect

A, B, C = PODS[:3]
LIMIT_NS = 1500


def test_an_established_packet_costs_little(node: Node, family: Family) -> None:
    """A repeated run works on the packet as the last run left it: so B's gateway gets A's MAC."""
    connect(node, family)
    node.endpoints[B.id]["host_mac"] = np.frombuffer(mac_bytes(A.mac), np.uint8)
    frame = bytes(Ether(src=A.mac, dst=A.host_mac) / family.tcp(A, B, flags="A"))
    runs = sorted(node.run("from_pod", A.ifindex, frame, repeat=200_000).duration_ns for _ in range(7))
    print(f"{family}: {runs[3]} ns an established packet (of {runs})")
    assert node.flow()["packets"][0] > 1_000_000
    assert runs[3] < LIMIT_NS
