"""The API server is away while an agent is started anew: pods go on as policy says, and nothing is taken back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.cluster import LargeCluster
from tests.kubernetes.population import Population, namespace
from tests.kubernetes.programs import reason_not_to_run
from tests.node.labs import Place, echo, until

PORT = 8080
SERVER, FRIEND, STRANGER = range(3)


@pytest.fixture
def cluster() -> Iterator[LargeCluster]:
    """One node with three pods, of an application each."""
    if reason := reason_not_to_run(nodes=False):
        pytest.skip(reason)
    cluster = LargeCluster(Population(nodes=1, pods=3, policies=0, namespaces=1, apps=3))
    try:
        cluster.start()
        cluster.start_agent()
        cluster.add_pods()
        yield cluster
    finally:
        cluster.close()


def policy(friend: int) -> dict[str, Any]:
    """The server may be reached by one application."""
    peer = {"matchLabels": {"app": f"app-{friend}"}}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "server", "namespace": namespace(0)},
        "spec": {"endpointSelector": {"matchLabels": {"app": "app-0"}}, "ingress": [{"fromEndpoints": [peer]}]},
    }


def may(cluster: LargeCluster, client: int) -> bool:
    """Whether a pod reaches the server; AssertionError if the families disagree."""
    server, place = cluster.pods[SERVER], Place(cluster.pods[client].netns)
    answers = {place.connects(address, PORT) for address in (server.ipv4, server.ipv6)}
    assert len(answers) == 1, answers
    return answers.pop()


@pytest.mark.timeout(300)
def test_an_agent_that_starts_without_an_api_server_leaves_all_as_it_was(cluster: LargeCluster) -> None:
    netns = f"/run/netns/{cluster.pods[SERVER].netns}"
    with subprocess.Popen(["nsenter", f"--net={netns}", *echo(f"{PORT}/tcp")]) as server:
        try:
            cluster.plane.kubectl.apply(policy(FRIEND))
            until(lambda: may(cluster, FRIEND) and not may(cluster, STRANGER), 30, "the policy")
            cluster.plane.api_server.stop()
            until(lambda: cluster.api("/status")["degraded"].get("store"), 30, "that the store is said to be away")
            assert cluster.is_ready(), "what is known is good enough"
            assert may(cluster, FRIEND) and not may(cluster, STRANGER)

            cluster.stop_agent()
            cluster.start_agent(ready=False)
            until(lambda: _waits(cluster), 60, "that the new agent says what it waits for")
            assert may(cluster, FRIEND) and not may(cluster, STRANGER), "the last life's policy holds"
            assert len(cluster.api("/tables/endpoints")["rows"]) == 3

            cluster.plane.start_api_server()
            until(cluster.is_ready, 60, "the agent's readiness")
            assert may(cluster, FRIEND) and not may(cluster, STRANGER)
            cluster.plane.kubectl.apply(policy(STRANGER))
            until(lambda: may(cluster, STRANGER) and not may(cluster, FRIEND), 30, "the changed policy")
        finally:
            server.kill()


def _waits(cluster: LargeCluster) -> bool:
    """Whether the agent is up, not ready, and says that the API server does not answer."""
    try:
        status = cluster.api("/status")
    except Exception:  # its socket is not there yet
        return False
    said = " ".join(reason for reasons in status["degraded"].values() for reason in reasons)
    return not status["ready"] and "policy" in status["reasons"] and "does not answer" in said
