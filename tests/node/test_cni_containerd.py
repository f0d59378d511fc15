"""Containers of a real containerd, connected through the installed configuration list and shim."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.node.cni_node import Node, require_root, wait_for
from tests.node.containerd import Containerd


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    require_root()
    if shutil.which("containerd") is None or shutil.which("runc") is None:
        pytest.skip("needs Debian's packages containerd and runc")
    node = Node(octet=107)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture(scope="module")
def containerd(node: Node) -> Iterator[Containerd]:
    daemon = Containerd(node.folder / "containerd", node.name, node.conflist.parent, node.folder / "bin")
    try:
        yield daemon
    finally:
        daemon.close()


def test_containers_get_addresses_and_reach_each_other(node: Node, containerd: Containerd) -> None:
    for name in ("one", "two"):
        containerd.start(name)
    found = wait_for("both are endpoints", lambda: {e["container_id"]: e for e in node.endpoints()})
    assert set(found) == {"default-one", "default-two"}
    for family, kind in (("-4", "ipv4"), ("-6", "ipv6")):
        address = found["default-two"][kind]
        assert " 0% packet loss" in containerd.run("one", "ping", family, "-c", "1", "-W", "2", address)
        assert " 0% packet loss" in node.host("ping", "-c1", "-W2", address)
        assert address in containerd.run("two", "ip", "addr", "show", "eth0")
    for name in ("one", "two"):
        assert "error" not in containerd.stop(name).lower()
    wait_for("no endpoint is left", lambda: node.endpoints() == [])


def test_a_container_that_ends_while_the_agent_is_down_is_forgotten_at_its_start(
    node: Node, containerd: Containerd
) -> None:
    containerd.start("three")
    wait_for("it is an endpoint", node.endpoints)
    node.kill()
    assert "error" not in containerd.stop("three").lower()
    node.start()
    assert node.endpoints() == []
