"""CiliumNode objects as peers: names and addresses."""

from __future__ import annotations

from typing import Any

import pytest
from ciliate.store import Object
from ciliate_hubble.api.peer_pb2 import PEER_ADDED
from ciliate_hubble.peer.nodes import PeerNames

V4, V6, OTHER = ("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1"), ("ExternalIP", "203.0.113.7")
ROUTER = ("CiliumInternalIP", "10.244.0.1")


def node(name: str, *addresses: tuple[str, str], **spec: Any) -> Object:
    """A CiliumNode."""
    entries = [{"type": type_, "ip": ip} for type_, ip in addresses]
    meta = {"name": name}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": meta,
        "spec": {"addresses": entries, **spec},
    }


@pytest.mark.parametrize(
    ("addresses", "prefer_ipv6", "expected"),
    [
        ((V4, V6), False, "10.0.0.1:4244"),
        ((V6, V4), False, "10.0.0.1:4244"),
        ((V4, V6), True, "[fd00::1]:4244"),
        ((V6,), False, "[fd00::1]:4244"),
        ((V4,), True, "10.0.0.1:4244"),
        ((OTHER, V6), False, "[fd00::1]:4244"),
        ((ROUTER, OTHER), False, "203.0.113.7:4244"),
        ((ROUTER,), False, ""),
        ((("InternalIP", "nonsense"), ("Hostname", "node1")), False, ""),
        ((), False, ""),
    ],
)
def test_the_address_is_the_nodes_internal_one_of_the_preferred_family(
    addresses: tuple[tuple[str, str], ...], prefer_ipv6: bool, expected: str
) -> None:
    assert PeerNames("default", 4244, prefer_ipv6).address(node("n", *addresses)) == expected


def test_without_a_port_the_address_goes_without() -> None:
    assert PeerNames("default", None).address(node("n", V6)) == "fd00::1"


@pytest.mark.parametrize(
    ("cluster", "name", "server"),
    [
        ("default", "a.b", "a-b.default.hubble-grpc.cilium.io"),
        ("", "a.b", "a-b.default.hubble-grpc.cilium.io"),
        ("eu.prod", "eu.prod/a.b", "a-b.eu-prod.hubble-grpc.cilium.io"),
    ],
)
def test_a_peers_name_has_its_cluster_unless_that_is_the_default(cluster: str, name: str, server: str) -> None:
    told = PeerNames(cluster, 4244).notification("a.b", "10.0.0.1:4244", PEER_ADDED)
    assert (told.name, told.tls.server_name) == (name, server)
    assert not PeerNames(cluster, 4244, tls=False).notification("a.b", "x", PEER_ADDED).HasField("tls")
