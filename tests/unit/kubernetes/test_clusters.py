"""Which cluster a command is about, and what pods' statuses say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ciliate.cli.cluster import find_cluster
from ciliate.cli.dispatch import CONTEXT, KUBECONFIG, CommandError
from ciliate_kubernetes.cli.cluster import KubernetesCluster, find
from ciliate_kubernetes.install.pods import is_ready, problems_of


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two contexts, of which the first is the current one; no lab, no configured node."""
    path = tmp_path / "kubeconfig"
    contexts: list[dict[str, Any]] = [{"name": name, "context": {}} for name in ("here", "there")]
    path.write_text(yaml.safe_dump({"current-context": "here", "contexts": contexts}))
    for name in (CONTEXT, KUBECONFIG, "CILIATE_LAB", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("CILIATE_CONFIG", str(tmp_path / "none.yaml"))
    return path


def test_a_name_is_a_context_and_none_means_the_current_one(kubeconfig: Path) -> None:
    assert find_cluster("there").name == "there"
    assert find_cluster().name == "here"
    with pytest.raises(CommandError, match="nowhere"):
        find_cluster("nowhere")


def test_the_context_that_is_asked_for_counts_before_a_configured_node(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = tmp_path / "ciliate.yaml"
    configured.write_text("cluster: {name: node}\n")
    monkeypatch.setenv("CILIATE_CONFIG", str(configured))
    assert find_cluster().name == "node"
    monkeypatch.setenv(CONTEXT, "there")
    assert find_cluster().name == "there"
    monkeypatch.setenv(CONTEXT, "nowhere")
    with pytest.raises(CommandError, match="there are here, there"):
        find_cluster()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("contexts: [{name: a}]", "no current context"),
        ("contexts: 7", "is no kubeconfig"),
        ("[", "is no kubeconfig"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(kubeconfig: Path, content: str, said: str) -> None:
    kubeconfig.write_text(content)
    with pytest.raises(CommandError, match=said):
        find("")


def test_a_missing_file_is_no_cluster_unless_it_was_asked_for(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert find("") is None
    monkeypatch.setenv(KUBECONFIG, "/nonexistent/too")
    with pytest.raises(CommandError, match="/nonexistent/too"):
        find("")


def test_the_namespace_is_the_environments(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CILIATE_NAMESPACE", "net")
    found = find("")
    assert isinstance(found, KubernetesCluster)
    assert found.namespace == "net"


def test_a_pods_problems_are_what_its_containers_wait_for_or_died_of() -> None:
    last = {"terminated": {"message": "first line\ncan't open the map\n", "exitCode": 1}}
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last}
    ended: Any = {"name": "init", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "no node has room"}
    pod = {"status": {"containerStatuses": [{"name": "agent", **waiting}], "initContainerStatuses": [ended]}}
    assert problems_of(pod) == ["container agent: CrashLoopBackOff: can't open the map"]
    assert problems_of({"status": {"conditions": [unscheduled]}}) == ["not scheduled: no node has room"]
    assert not is_ready(pod)
    assert is_ready({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
