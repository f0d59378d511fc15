"""The plugin's settings."""

from __future__ import annotations

from ciliate.plugin import Section


class KubernetesConfig(Section):
    """What of the cluster's objects the agent looks at, and what the operator does with nodes (Cilium's names)."""

    endpoints: bool = True  # CiliumEndpoints: the pods of other nodes
    nodes: bool = True  # CiliumNodes: the other nodes and their pod ranges
    api_server: bool = True  # the service `kubernetes`: what kube-apiserver means in policies
    agent_not_ready_taint_key: str = "node.cilium.io/agent-not-ready"
    remove_cilium_node_taints: bool = True  # from nodes whose network works
    set_cilium_is_up_condition: bool = True  # NetworkUnavailable is False there
