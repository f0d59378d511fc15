"""Ciliate as the network of a real Kubernetes: pods, policies, nodes, and an agent that is killed under traffic."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from tests.kubernetes.daemons import wait_for
from tests.kubernetes.installation import SYSTEM, Installation, pod, web
from tests.kubernetes.node import Node
from tests.kubernetes.probe import Stream

FAMILIES = {"IPv4": 0, "IPv6": 1}
ROUNDS = 20


def on(node: Node) -> dict[str, Any]:
    """Part of a pod's spec: where it runs."""
    return {"nodeName": node.name}


def allow_friends(kind: str = "CiliumNetworkPolicy", name: str = "friends") -> dict[str, Any]:
    """A policy that lets only the pod friend in to web."""
    selector = {"matchLabels": {"app": "web"}}
    friends = {"matchLabels": {"app": "friend"}}
    if kind == "NetworkPolicy":
        spec: dict[str, Any] = {"podSelector": selector, "ingress": [{"from": [{"podSelector": friends}]}]}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "default"},
            "spec": spec,
        }
    if kind == "CiliumClusterwideNetworkPolicy":
        selector = {"matchLabels": {"app": "web", "k8s:io.kubernetes.pod.namespace": "default"}}
        friends = {"matchLabels": {"app": "friend", "k8s:io.kubernetes.pod.namespace": "default"}}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": "default"} if kind == "CiliumNetworkPolicy" else {})},
        "spec": {"endpointSelector": selector, "ingress": [{"fromEndpoints": [friends]}]},
    }


@pytest.fixture(scope="module")
def addresses(installation: Installation) -> Iterator[dict[str, list[str]]]:
    """Addresses of web, client and friend, on the first node."""
    here = on(installation.cluster.nodes[0])
    with installation.pods(web("web", **here), pod("client", **here), pod("friend", **here)) as made:
        yield made


@contextmanager
def applied(installation: Installation, *policies: dict[str, Any]) -> Iterator[None]:
    """Policies that are there meanwhile."""
    installation.kubectl.apply(*policies)
    try:
        yield
    finally:
        installation.kubectl.delete(*policies)


def test_nodes_are_ready_with_ciliate_as_the_only_network_plugin(installation: Installation) -> None:
    for node in installation.cluster.nodes:
        conditions = installation.kubectl.json("get", "node", node.name)["status"]["conditions"]
        assert {c["type"]: c["status"] for c in conditions}["Ready"] == "True"
        assert node.run("ls", "/etc/cni/net.d").split() == ["05-ciliate.conflist"]


def test_pods_get_an_address_of_each_family_from_their_nodes_range(
    installation: Installation, addresses: dict[str, list[str]]
) -> None:
    seen = {address for pair in addresses.values() for address in pair}
    assert len(seen) == 2 * len(addresses)
    nodes = {
        n["metadata"]["name"]: n["spec"]["ipam"]["podCIDRs"] for n in installation.kubectl.items("get", "ciliumnodes")
    }
    assert set(nodes) == {node.name for node in installation.cluster.nodes}
    assert len({cidr for cidrs in nodes.values() for cidr in cidrs}) == 2 * len(nodes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy"])
def test_policies_applied_with_kubectl_are_enforced_between_containers(
    installation: Installation, addresses: dict[str, list[str]], kind: str, family: str
) -> None:
    address = addresses["web"][FAMILIES[family]]
    installation.await_connects("client", address)
    with applied(installation, allow_friends(kind)):
        installation.await_connects("client", address, wanted=False)
        assert installation.connects("friend", address)
    installation.await_connects("client", address)


def test_a_policy_with_ports_and_cidrs_is_enforced(installation: Installation, addresses: dict[str, list[str]]) -> None:
    policy = allow_friends()
    policy["spec"]["ingress"] = [
        {"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": [{"ports": [{"port": "81"}]}]}
    ]
    policy["spec"]["egress"] = [{"toCIDR": ["192.0.2.0/24"]}]
    with (
        applied(installation, policy),
        installation.pods(web("other", 81, labels={"app": "web"}, **on(installation.cluster.nodes[0]))) as other,
    ):
        installation.await_connects("client", addresses["web"][0], wanted=False)
        installation.await_connects("client", other["other"][0], port=81)
        assert not installation.connects("friend", other["other"][0], 81)


def test_a_policy_is_enforced_within_milliseconds_of_kubectl(
    installation: Installation, addresses: dict[str, list[str]]
) -> None:
    """From the API server's receipt of the request, which is in its audit log, to the first packet that is dropped."""
    node = installation.cluster.nodes[0]
    stream = Stream(node, addresses["client"][0], addresses["web"][0], addresses["web"][0])
    for number in range(ROUNDS):
        installation.kubectl.apply(allow_friends(name=f"timed-{number}"))
        installation.kubectl("delete", "cnp", f"timed-{number}")
    packets = stream.stop()
    applied_at = {
        event["objectRef"]["name"]: datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
        for event in installation.audited()
        if event["verb"] == "create" and event["objectRef"].get("resource") == "ciliumnetworkpolicies"
    }
    spent = []
    for number in range(ROUNDS):
        began = applied_at[f"timed-{number}"]
        spent.append(next(sent for sent, answered in packets if sent > began and answered is None) - began)
    spent.sort()
    p50 = statistics.median(spent)
    print(f"\napply to enforced: p50 {p50 * 1000:.1f} ms, min {spent[0] * 1000:.1f}, max {spent[-1] * 1000:.1f}")
    assert p50 < 0.050


def test_nothing_is_lost_or_let_pass_while_the_agents_pod_is_killed_and_comes_back(
    installation: Installation, addresses: dict[str, list[str]]
) -> None:
    node = installation.cluster.nodes[0]
    before = installation.agent(node)
    with applied(installation, allow_friends()):
        installation.await_connects("client", addresses["web"][0], wanted=False)
        allowed = Stream(node, addresses["friend"][0], addresses["web"][0], addresses["web"][1])
        installation.kubectl("delete", "pod", before, "-n", SYSTEM, "--force", "--grace-period=0")
        after = wait_for("another agent", lambda: _other_agent(installation, node, before))
        assert after is not None
        installation.await_ready(after, namespace=SYSTEM)
        with installation.pods(pod("newcomer", **on(node))):
            assert not installation.connects("newcomer", addresses["web"][0])
        assert not installation.connects("client", addresses["web"][0])
        packets = allowed.stop()
    lost = [sent for sent, answered in packets if answered is None]
    assert len(packets) > 1000
    assert lost == [], f"{len(lost)} of {len(packets)} datagrams were not answered"


def _other_agent(installation: Installation, node: Node, before: str) -> str | None:
    try:
        name = installation.agent(node)
    except ValueError:
        return None
    return name if name != before else None


def test_objects_read_well(installation: Installation, addresses: dict[str, list[str]]) -> None:
    with applied(installation, allow_friends()):
        installation.ciliate("status", "--wait", "--wait-duration", "30s")
        endpoints = _table(installation, "cep")
        assert {row[0] for row in endpoints} >= {"client", "friend", "web"}
        web_row = next(row for row in endpoints if row[0] == "web")
        assert addresses["web"][0] in web_row and "ready" in web_row
        assert {row[0] for row in _table(installation, "ciliumnodes")} == {n.name for n in installation.cluster.nodes}
        assert any("default" in row for row in _table(installation, "ciliumidentities"))
        assert wait_for("the policy is valid", lambda: next(r for r in _table(installation, "cnp") if "True" in r))


def _table(installation: Installation, resource: str) -> list[list[str]]:
    lines = installation.kubectl("get", resource, "--no-headers").splitlines()
    return [line.split() for line in lines]


def test_deleted_pods_leave_nothing(installation: Installation) -> None:
    node = installation.cluster.nodes[1]
    with installation.pods(*(pod(f"brief-{n}", **on(node)) for n in range(3))):
        assert len([line for line in node.run("ip", "-br", "link").splitlines() if line.startswith("lxc")]) == 3

    def links() -> list[str]:
        return [line for line in node.run("ip", "-br", "link").splitlines() if line.startswith("lxc")]

    wait_for("their devices are gone", lambda: not links(), limit=15)
    wait_for("their endpoints are gone", lambda: not _endpoints(installation, node.name), limit=15)


def _endpoints(installation: Installation, node: str) -> list[str]:
    endpoints = json.loads(installation.dbg("endpoint", "list", "--node", node, "-o", "json"))
    objects = [e["metadata"]["name"] for e in installation.kubectl.items("get", "cep", "-A")]
    return [e["pod"] for e in endpoints if e["pod"].startswith("brief-")] + [
        n for n in objects if n.startswith("brief-")
    ]


def test_flows_are_shown_with_the_policy_that_denies_them(
    installation: Installation, addresses: dict[str, list[str]]
) -> None:
    agent = installation.agent(installation.cluster.nodes[0])
    with applied(installation, allow_friends()):
        installation.await_connects("client", addresses["web"][0], wanted=False)
        words = ("exec", "-n", SYSTEM, agent, "-c", "hubble", "--", "ciliate", "hubble", "observe")

        def denied() -> str:
            return installation.kubectl(*words, "--verdict", "DROPPED", "--to-pod", "default/web", "--last", "5")

        assert "default/client" in wait_for("a denied flow", denied)


def test_commands_reach_into_nodes_through_the_api_server(
    installation: Installation, addresses: dict[str, list[str]]
) -> None:
    first, second = installation.cluster.nodes
    with applied(installation, allow_friends()):
        installation.await_connects("client", addresses["web"][0], wanted=False)
        words = ("policy", "explain", "--from", "client", "--to", "web", "--port", "80/tcp", "-o", "json")
        explained = json.loads(installation.ciliate(*words).stdout)
        assert explained["verdict"] == "denied"
        seen = json.loads(installation.dbg("endpoint", "list", "--node", first.name, "-o", "json"))
        assert {e["pod"] for e in seen} >= {"client", "friend", "web"}
        assert json.loads(installation.dbg("endpoint", "list", "--node", second.name, "-o", "json")) == []
    assert "no agent on node 'nowhere'" in installation.ciliate("plugins", "--node", "nowhere", check=False).stderr
