"""One program set for all tests here, loaded once; a node with five pods for each test."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ciliate
import pytest
from ciliate.kernel import bpffs
from ciliate.maps.registry import MapRegistry
from ciliate.model import datapath
from ciliate.programs.object import ProgramSet

from tests.bpf.datapath import namespace
from tests.bpf.datapath.families import FAMILIES, Family
from tests.bpf.datapath.node import DEVICES, HOST_IFINDEX, HOST_MAC, Node, mac_bytes, specs

BPF = Path(ciliate.__file__).parent / "_bpf"
SETTINGS = datapath.settings(
    host_ifindex=HOST_IFINDEX,
    host_mac=mac_bytes(HOST_MAC),
    world_ipv4_identity=9,
    world_ipv6_identity=10,
    timeout_tcp=datapath.ticks(8000),
    timeout_any=datapath.ticks(60),
    timeout_syn=datapath.ticks(60),
    timeout_fin=datapath.ticks(10),
    event_interval=datapath.ticks(5),
    drop_burst=16,
    drop_window=datapath.ticks(60),
)


@pytest.fixture(scope="package")
def program_object() -> Path:
    """The data path, compiled now."""
    subprocess.run(["make", "--no-print-directory", "-C", str(BPF)], check=True)
    return BPF / "build" / datapath.OBJECT


@pytest.fixture(scope="package")
def loaded(program_object: Path) -> Iterator[Node]:
    """The program set on maps in a bpffs of its own, in a namespace of its own, on one CPU."""
    if not namespace.kernel_has_test_runs():
        pytest.skip("needs root: programs are loaded and run in the kernel")
    cpus = os.sched_getaffinity(0)
    with (
        tempfile.TemporaryDirectory(prefix="datapath-", dir="/run") as folder,
        bpffs.mounted(Path(folder) / "bpf") as root,
        namespace.entered(DEVICES),
        MapRegistry(root) as registry,
    ):
        os.sched_setaffinity(0, {min(cpus)})  # caches and drop limits are per CPU
        for spec, module in specs():
            registry.declare(spec, module.__name__)
        registry.create()
        with ProgramSet.load(program_object, registry, SETTINGS) as programs:
            yield Node(registry, programs)
        os.sched_setaffinity(0, cpus)


@pytest.fixture
def node(loaded: Node) -> Node:
    """A node with pods 1 to 5 that may do anything."""
    loaded.reset()
    return loaded


@pytest.fixture(params=FAMILIES, ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    """IPv4, then IPv6."""
    found: Family = request.param
    return found
