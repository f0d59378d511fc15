"""`ciliate status`, `config`, `plugins`, `version` and `install` of a real cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kubernetes.daemons import wait_for
from tests.kubernetes.installation import SYSTEM, Installation, pod, web


def workloads(installation: Installation) -> dict[str, int]:
    """Generations of what runs: they grow with each roll."""
    found = installation.kubectl.items("get", "daemonsets,deployments", "-n", SYSTEM)
    return {obj["metadata"]["name"]: obj["metadata"]["generation"] for obj in found}


def report(installation: Installation, status: int = 0) -> Any:
    done = installation.ciliate("status", "-o", "json", check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_status_counts_pods_and_is_green(installation: Installation) -> None:
    with installation.pods(pod("counted")):
        wait_for("all pods are managed", lambda: (found := report(installation))["pods"][0] == found["pods"][1] >= 1)
    found = report(installation)
    nodes = len(installation.cluster.nodes)
    counts = {c["name"]: (c["workload"], c["desired"], c["ready"], c["available"]) for c in found["components"]}
    assert counts["agent"] == ("DaemonSet ciliate", nodes, nodes, nodes)
    assert counts["operator"][0] == "Deployment ciliate-operator"
    assert found["problems"] == []
    text = installation.ciliate("status", "--wait").stdout
    assert "Agent:     OK" in text and "Operator:  OK" in text


def test_status_says_what_a_container_that_is_not_ready_lacks(installation: Installation) -> None:
    kubectl = installation.kubectl
    binding = kubectl.json("get", "clusterrolebinding", "ciliate")
    node = installation.cluster.nodes[0]
    kubectl("delete", "clusterrolebinding", "ciliate")
    try:
        kubectl("delete", "pod", installation.agent(node), "-n", SYSTEM, "--grace-period=1")

        def told() -> bool:
            done = installation.ciliate("status", check=False)
            return done.returncode == 1 and "lacks the right to" in done.stdout

        wait_for("the right that is lacking", told)
    finally:
        kubectl.apply({part: value for part, value in binding.items() if part != "status"} | _named(binding))
    installation.ciliate("status", "--wait", "--wait-duration", "60s")


def _named(obj: Any) -> dict[str, Any]:
    return {"metadata": {part: obj["metadata"][part] for part in ("name", "labels")}}


def test_a_setting_is_taken_up_by_a_roll_and_taken_back(installation: Installation) -> None:
    before = workloads(installation)
    installation.ciliate("config", "set", "cni.conntrack_interval", "7")
    try:
        assert "cni.conntrack_interval" in installation.ciliate("config", "view").stdout
        assert workloads(installation)["ciliate"] == before["ciliate"] + 1
        installation.ciliate("status", "--wait", "--wait-duration", "60s")
        rows = json.loads(installation.ciliate("config", "-o", "json").stdout)
        (row,) = [row for row in rows if row["key"] == "cni.conntrack_interval"]
        assert row["value"] == 7.0 and row["origin"].endswith("cni.conntrack_interval")
    finally:
        installation.ciliate("config", "delete", "cni.conntrack_interval")
    installation.ciliate("status", "--wait", "--wait-duration", "60s")
    assert "cni.conntrack_interval" not in installation.ciliate("config", "view").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("config", "set", "cni.mtux", "1"), "unknown key"),
        (("config", "set", "plugins", "[cni]"), "cni needs ipam"),
        (("config", "delete", "cni.mtu"), "cni.mtu is not set"),
        (("plugins", "enable", "nonsense"), "not installed in the cluster"),
        (("plugins", "disable", "nonsense"), "not enabled"),
        (("plugins", "disable", "ipam"), "cni needs ipam"),
        (("status", "--context", "elsewhere"), "no such context"),
        (("install", "--set", "ipam.moda=x"), "unknown key"),
        (("install", "--image-pull-policy", "Perhaps"), "Perhaps"),
    ],
)
def test_what_would_be_refused_changes_nothing(installation: Installation, words: tuple[str, ...], said: str) -> None:
    settings, before = installation.ciliate("config", "view").stdout, workloads(installation)
    done = installation.ciliate(*words, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (installation.ciliate("config", "view").stdout, workloads(installation)) == (settings, before)


def test_enabling_what_is_enabled_is_fine(installation: Installation) -> None:
    before = workloads(installation)
    assert "enabled already" in installation.ciliate("plugins", "enable", "policy").stdout
    assert workloads(installation) == before
    rows = json.loads(installation.ciliate("plugins", "-o", "json").stdout)
    assert {row["name"]: row["state"] for row in rows}["policy"] == "enabled"


def test_a_plugin_with_a_process_of_its_own_comes_and_goes_with_its_container(installation: Installation) -> None:
    def containers() -> list[str]:
        agents = installation.kubectl.json("get", "daemonset", "ciliate", "-n", SYSTEM)
        return [container["name"] for container in agents["spec"]["template"]["spec"]["containers"]]

    assert containers() == ["agent", "hubble"]
    installation.ciliate("plugins", "disable", "hubble")
    try:
        assert containers() == ["agent"]
    finally:
        installation.ciliate("plugins", "enable", "hubble")
    assert containers() == ["agent", "hubble"]
    installation.ciliate("status", "--wait", "--wait-duration", "60s")


def test_installing_again_changes_nothing_and_keeps_settings(installation: Installation) -> None:
    before, settings = workloads(installation), installation.ciliate("config", "view").stdout
    assert "policy.identity_gc_interval" in settings
    said = installation.ciliate("install").stdout
    assert [line for line in said.splitlines() if not line.endswith(" unchanged")] == []
    assert (workloads(installation), installation.ciliate("config", "view").stdout) == (before, settings)


def test_versions_are_those_that_run(installation: Installation) -> None:
    said = installation.ciliate("version").stdout
    assert said.startswith("ciliate ")
    assert f"ciliate:0.1.0 ({len(installation.cluster.nodes)} running)" in said
    assert len(installation.ciliate("version", "--client").stdout.splitlines()) == 1


def test_who_may_not_execute_in_pods_is_told_so(installation: Installation) -> None:
    plane = installation.cluster.control_plane
    viewer = plane.authority.kubeconfig(plane.url, "viewer", ["viewers"])
    words = ("create", "clusterrolebinding", "viewers", "--clusterrole=view", "--group=viewers")
    installation.kubectl(*words)
    try:
        done = installation.ciliate("plugins", "--kubeconfig", str(viewer), check=False)
        assert done.returncode == 1
        assert 'User "viewer" cannot' in done.stderr and "pods/exec" in done.stderr
    finally:
        installation.kubectl("delete", "clusterrolebinding", "viewers")


def test_apply_waits_until_every_node_enforces(installation: Installation) -> None:
    here: dict[str, Any] = {"nodeName": installation.cluster.nodes[0].name}
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "closed", "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "shut"}}, "ingress": [{"fromEndpoints": []}]},
    }
    file = installation.cluster.folder / "policy.json"
    file.write_text(json.dumps(policy))
    with installation.pods(web("shut", **here), pod("visitor", **here)) as addresses:
        assert installation.connects("visitor", addresses["shut"][0])
        installation.ciliate("apply", "--wait", "-f", str(file))
        try:
            assert not installation.connects("visitor", addresses["shut"][0])
            assert "closed" in installation.ciliate("get", "cnp").stdout
        finally:
            installation.ciliate("delete", "cnp", "closed")
