"""Kinds of objects that several plugins know. A plugin's own kinds come through the hook `ciliate_kinds`."""

from __future__ import annotations

from ciliate.leadership import LEASE
from ciliate.recorder import EVENT
from ciliate.store import Kind

NAMESPACE = Kind("v1", "Namespace", "namespaces", False, ("ns",))
NODE = Kind("v1", "Node", "nodes", False, ("no",))
POD = Kind("v1", "Pod", "pods", True, ("po",))
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", True, ("netpol",), has_status=False)
CILIUM_NETWORK_POLICY = Kind("cilium.io/v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies", True, ("cnp", "ciliumnp"))
CILIUM_CLUSTERWIDE_NETWORK_POLICY = Kind(
    "cilium.io/v2", "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", False, ("ccnp",)
)
CILIUM_CIDR_GROUP = Kind("cilium.io/v2", "CiliumCIDRGroup", "ciliumcidrgroups", False, ("ccg",))
CILIUM_NODE = Kind("cilium.io/v2", "CiliumNode", "ciliumnodes", False, ("cn", "ciliumn"))
CILIUM_IDENTITY = Kind("cilium.io/v2", "CiliumIdentity", "ciliumidentities", False, ("ciliumid",), has_status=False)
CILIUM_ENDPOINT = Kind("cilium.io/v2", "CiliumEndpoint", "ciliumendpoints", True, ("cep", "ciliumep"), has_status=False)

KINDS = (
    NAMESPACE,
    NODE,
    POD,
    NETWORK_POLICY,
    CILIUM_NETWORK_POLICY,
    CILIUM_CLUSTERWIDE_NETWORK_POLICY,
    CILIUM_CIDR_GROUP,
    CILIUM_NODE,
    CILIUM_IDENTITY,
    CILIUM_ENDPOINT,
    LEASE,
    EVENT,
)
