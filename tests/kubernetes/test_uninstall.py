"""`ciliate uninstall`: nodes and cluster are as they were; and what was taken off can be put on again."""

from __future__ import annotations

from tests.kubernetes.installation import SYSTEM, Installation, pod, traces


def objects(installation: Installation) -> set[str]:
    """Names of what an installation consists of, and of the state that agents and operators keep."""
    kinds = "daemonsets,deployments,configmaps,serviceaccounts,roles,rolebindings,leases,secrets"
    names = installation.kubectl("get", kinds, "-n", SYSTEM, "-o", "name").split()
    names += installation.kubectl(
        "get", "clusterroles,clusterrolebindings,ciliumnodes,ciliumidentities", "-o", "name"
    ).split()
    names += installation.kubectl("get", "cep", "-A", "-o", "name").split()
    return {name for name in names if "cili" in name or "hubble" in name} - {"secret/cilium-ca"}


def test_nodes_and_cluster_are_as_they_were_and_can_be_installed_again(
    installation: Installation,
) -> None:
    kubectl = installation.kubectl
    kept = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "kept", "namespace": "default"},
    }
    kubectl.apply({**kept, "spec": {"endpointSelector": {}, "ingress": [{}]}})
    with installation.pods(*(pod(f"pod-{node.name}", nodeName=node.name) for node in installation.cluster.nodes)):
        installation.ciliate("uninstall")
        assert {node.name: traces(node) for node in installation.cluster.nodes} == installation.bare
        assert objects(installation) == set()
        assert kubectl("get", "cnp", "kept", "-o", "name") == "ciliumnetworkpolicy.cilium.io/kept\n"
        assert "is not there" in installation.ciliate("status", check=False).stdout
        assert "not installed" in installation.ciliate("uninstall").stdout
    installation.ciliate("uninstall", "--crds")
    assert kubectl("get", "crds", "-o", "name") == ""
    installation.install()
    with installation.pods(pod("again", nodeName=installation.cluster.nodes[0].name)):
        pass
