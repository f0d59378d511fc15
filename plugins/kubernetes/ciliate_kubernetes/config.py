"""The plugin's settings."""

from __future__ import annotations

from ciliate.plugin import Section


class KubernetesConfig(Section):
    """What of the cluster's objects the agent looks at."""

    endpoints: bool = True  # CiliumEndpoints: the pods of other nodes
    nodes: bool = True  # CiliumNodes: the other nodes and their pod ranges
    api_server: bool = True  # the service `kubernetes`: what kube-apiserver means in policies
