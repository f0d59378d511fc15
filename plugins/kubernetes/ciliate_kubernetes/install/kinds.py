"""Kinds of which an installation is made."""

from __future__ import annotations

from ciliate.store import Kind

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps", True, ("cm",), has_status=False)
SECRET = Kind("v1", "Secret", "secrets", True, has_status=False)
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts", True, ("sa",), has_status=False)
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets", True, ("ds",))
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments", True, ("deploy",))
_RBAC = "rbac.authorization.k8s.io/v1"
CLUSTER_ROLE = Kind(_RBAC, "ClusterRole", "clusterroles", False, has_status=False)
CLUSTER_ROLE_BINDING = Kind(_RBAC, "ClusterRoleBinding", "clusterrolebindings", False, has_status=False)
ROLE = Kind(_RBAC, "Role", "roles", True, has_status=False)
ROLE_BINDING = Kind(_RBAC, "RoleBinding", "rolebindings", True, has_status=False)
CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", False, ("crd", "crds")
)

INSTALLED = (
    SERVICE_ACCOUNT,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    CONFIG_MAP,
    DAEMON_SET,
    DEPLOYMENT,
)
"""In the order in which they are made."""
