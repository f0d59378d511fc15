"""What a packet costs in the program alone. The gate is wide: other work shares the machine."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from ciliate.model import datapath
from ciliate.programs.object import ProgramSet
from scapy.layers.l2 import Ether

from tests.bpf.core.conftest import compile_object
from tests.bpf.datapath.conftest import BPF, SETTINGS
from tests.bpf.datapath.families import FAMILIES, Family
from tests.bpf.datapath.node import PODS, Node, mac_bytes
from tests.bpf.datapath.test_flows import connect

A, B, C = PODS[:3]
LIMIT_NS = 1500
EMPTY_POINT_NS = 2.0
LOADS, ROUNDS, RUNS = 12, 5, 100_000


def test_an_established_packet_costs_little(node: Node, family: Family) -> None:
    """A repeated run works on the packet as the last run left it: so B's gateway gets A's MAC."""
    connect(node, family)
    node.endpoints[B.id]["host_mac"] = np.frombuffer(mac_bytes(A.mac), np.uint8)
    frame = bytes(Ether(src=A.mac, dst=A.host_mac) / family.tcp(A, B, flags="A"))
    runs = sorted(node.run("from_pod", A.ifindex, frame, repeat=200_000).duration_ns for _ in range(7))
    print(f"{family}: {runs[3]} ns an established packet (of {runs})")
    assert node.flow()["packets"][0] > 1_000_000
    assert runs[3] < LIMIT_NS


def without_points(folder: Path) -> Path:
    """The data path, compiled without its extension points."""
    shutil.copytree(BPF / "include", folder / "include")
    source = (BPF / "node.bpf.c").read_text()
    call = "packet->switches & SWITCH_POINT(PLUGIN_POINT_FROM_POD)"
    assert call in source
    (folder / "node.bpf.c").write_text(source.replace(call, "0"))
    return compile_object(folder / "node.bpf.c", folder / datapath.OBJECT, f"-I{folder / 'include'}")


def test_an_empty_point_costs_nothing(node: Node, program_object: Path, tmp_path: Path) -> None:
    """The least of alternating runs of programs loaded several times: where the kernel puts one costs up to 5 ns."""
    connect(node, FAMILIES[0])
    node.endpoints[B.id]["host_mac"] = np.frombuffer(mac_bytes(A.mac), np.uint8)
    frame = bytes(Ether(src=A.mac, dst=A.host_mac) / FAMILIES[0].tcp(A, B, flags="A"))
    context = node.context(A.ifindex)
    objects = {"with": program_object, "without": without_points(tmp_path)}
    best = dict.fromkeys(objects, 1 << 30)
    for number in range(LOADS):
        with ExitStack() as held:
            loaded = {
                name: held.enter_context(ProgramSet.load(path, node.registry, SETTINGS)).program("from_pod")
                for name, path in objects.items()
            }
            for name in [*loaded] * ROUNDS:
                best[name] = min(best[name], loaded[name].test_run(frame, context, RUNS).duration_ns)
        if number > 1 and best["with"] - best["without"] <= EMPTY_POINT_NS:
            break
    print(f"an established packet: {best['with']} ns with an empty point, {best['without']} ns without one")
    assert best["with"] - best["without"] <= EMPTY_POINT_NS
