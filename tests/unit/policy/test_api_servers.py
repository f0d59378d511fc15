"""What `kube-apiserver` means in a policy, wherever the API server is."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ciliate.model.identity import Reserved

from tests.unit.policy.world import Cluster, outside, pod, reserved

WEB = pod("one", app="web")
SERVER, NEIGHBOUR = outside("203.0.113.9"), outside("203.0.113.10")


def policy(**egress: Any) -> dict[str, Any]:
    """What web may reach."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "web", "namespace": "one"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": [egress]},
    }


@pytest.fixture
def cluster() -> Cluster:
    """One pod."""
    return Cluster([WEB])


def may(cluster: Cluster, peer: Any) -> bool:
    return cluster.verdict(WEB, peer, "egress", 6, 6443) == "allow"


def test_one_on_this_node_is_the_host_and_only_then(cluster: Cluster) -> None:
    cluster.apply([policy(toEntities=["kube-apiserver"])])
    assert not may(cluster, reserved("host"))
    cluster.engine.set_api_servers(True, [])
    assert may(cluster, reserved("host")) and not may(cluster, reserved("remote-node"))
    cluster.apply([policy(toEntities=["host"])])
    assert may(cluster, reserved("host")), "it is the host still"
    cluster.apply([policy(toEntities=["kube-apiserver"])])
    cluster.engine.set_api_servers(False, [])
    assert not may(cluster, reserved("host"))


def test_one_on_another_node_is_a_remote_node_too(cluster: Cluster) -> None:
    server = {"labels": ["reserved:kube-apiserver"]}
    assert cluster.peer_identity(server) == Reserved.KUBE_APISERVER
    cluster.apply([policy(toEntities=["remote-node"])])
    assert may(cluster, server) and may(cluster, reserved("remote-node"))
    cluster.apply([policy(toEntities=["kube-apiserver"])])
    assert may(cluster, server) and not may(cluster, reserved("remote-node"))


@pytest.mark.parametrize(
    "egress",
    [
        {"toEntities": ["kube-apiserver"]},
        {"toEntities": ["world"]},
        {"toCIDR": ["203.0.113.0/24"]},
        {"toCIDR": ["0.0.0.0/0"]},
    ],
)
def test_one_outside_is_outside_as_well(cluster: Cluster, egress: dict[str, Any]) -> None:
    cluster.engine.set_api_servers(False, [ipaddress.ip_network("203.0.113.9")])
    cluster.apply([policy(**egress)])
    assert may(cluster, SERVER)
    assert may(cluster, NEIGHBOUR) == (egress != {"toEntities": ["kube-apiserver"]})


def test_one_that_moves_is_followed(cluster: Cluster) -> None:
    cluster.apply([policy(toEntities=["kube-apiserver"])])
    assert not may(cluster, SERVER)
    cluster.engine.set_api_servers(False, [ipaddress.ip_network("203.0.113.9")])
    assert may(cluster, SERVER)
    cluster.engine.set_api_servers(False, [ipaddress.ip_network("203.0.113.10")])
    assert not may(cluster, SERVER) and may(cluster, NEIGHBOUR)
