"""What users look at in a real cluster: endpoints, identities, nodes and policies, by kubectl."""

from __future__ import annotations

import json
from typing import Any

from tests.kubernetes.daemons import wait_for
from tests.kubernetes.installation import SYSTEM, Installation, web


def lines(installation: Installation, *words: str) -> dict[str, list[str]]:
    """What `kubectl get` prints: the first column to the others."""
    found = [line.split() for line in installation.kubectl("get", *words, "--no-headers").splitlines()]
    return {line[0]: line[1:] for line in found}


def policy(**more: Any) -> dict[str, Any]:
    """A policy of web's."""
    spec = {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"fromEndpoints": [{}]}], **more}
    metadata = {"name": "looked-at", "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


def test_each_pod_has_an_endpoint_that_goes_with_it(installation: Installation) -> None:
    kubectl = installation.kubectl
    nodes = [node.name for node in installation.cluster.nodes]
    with installation.pods(*(web(f"web-{n}", labels={"app": "web"}, nodeName=n) for n in nodes)) as addresses:
        for name in nodes:
            v4, v6 = addresses[f"web-{name}"]
            endpoint = kubectl.wait("endpoint", "cep", f"web-{name}", condition=lambda one: one["status"]["identity"])
            identity = str(endpoint["status"]["identity"]["id"])
            assert lines(installation, "cep")[f"web-{name}"] == [identity, "ready", v4, v6]
            assert lines(installation, "ciliumidentities")[identity][0] == "default"
            owner = endpoint["metadata"]["ownerReferences"][0]
            assert owner["uid"] == kubectl.json("get", "pod", f"web-{name}")["metadata"]["uid"]
        identities = {one["status"]["identity"]["id"] for one in kubectl.items("get", "cep", "-l", "app=web")}
        assert len(identities) == 1, "pods with the same labels have one identity on all nodes"
    wait_for("endpoints go", lambda: not kubectl("get", "cep", "-o", "name", "-l", "app=web"))


def test_nodes_say_that_their_network_works(installation: Installation) -> None:
    kubectl = installation.kubectl
    for node in installation.cluster.nodes:
        found = kubectl.json("get", "node", node.name)
        conditions = {one["type"]: (one["status"], one["reason"]) for one in found["status"]["conditions"]}
        assert conditions["NetworkUnavailable"] == ("False", "CiliumIsUp")
        kubectl("taint", "node", node.name, "node.cilium.io/agent-not-ready=true:NoSchedule")
        kubectl.wait(
            "the taint goes", "node", node.name,
            condition=lambda one: "node.cilium.io/agent-not-ready" not in str(one["spec"].get("taints")),
        )  # fmt: skip
        router, internal, _ = lines(installation, "cn")[node.name]
        assert router != internal == found["status"]["addresses"][0]["address"]


def test_a_policy_says_that_it_is_enforced_on_all_nodes_and_what_of_it_is_not(installation: Installation) -> None:
    kubectl, nodes = installation.kubectl, len(installation.cluster.nodes)
    try:
        kubectl.apply(policy())
        kubectl("wait", "--for=condition=Enforced", "cnp/looked-at", "--timeout=30s")
        assert lines(installation, "cnp")["looked-at"][1:] == ["True", "True"]
        assert lines(installation, "cnp", "-o", "wide")["looked-at"][3:] == (
            f"generation 1 is enforced on {nodes} of {nodes} nodes".split()
        )
        kubectl.apply(policy(egress=[{"toNodes": [{}]}]))
        kubectl("wait", "--for=condition=Unsupported", "cnp/looked-at", "--timeout=30s")
        wait_for("an event", lambda: "spec.egress[0].toNodes" in kubectl("describe", "cnp", "looked-at"))
        bad = json.dumps(policy(egress=[{"toCIDR": ["10.0.0.0/99"]}]))
        refused = kubectl.run("apply", "-f", "-", stdin=bad)
        assert "spec.egress[0].toCIDR[0]" in refused.stderr
    finally:
        kubectl.delete(policy())


def test_an_operator_that_is_killed_goes_on(installation: Installation) -> None:
    kubectl = installation.kubectl
    selector = ("-n", SYSTEM, "-l", "io.cilium/app=operator")
    kubectl("delete", "pod", *selector, "--force", "--grace-period=0", limit=60)
    try:
        kubectl.apply(policy())
        kubectl("wait", "--for=condition=Enforced", "cnp/looked-at", "--timeout=60s", limit=70)
    finally:
        kubectl.delete(policy())
