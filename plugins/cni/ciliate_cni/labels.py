"""An endpoint's labels and named ports, from its Pod and Namespace objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciliate.model.endpoint import Endpoint, NamedPort
from msgspec import structs

Object = Mapping[str, Any]
_CLUSTER = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
_NAMESPACE = "io.kubernetes.pod.namespace"
_NAMESPACE_LABEL = "io.cilium.k8s.namespace.labels."


def labels_of(pod: Object, namespace: Object | None, cluster: str) -> tuple[str, ...]:
    """All labels of a pod as source:key=value, sorted. What the plugin adds wins over a pod's label of the same key."""
    meta, spec = pod["metadata"], pod.get("spec") or {}
    labels = {str(key): _text(value) for key, value in (meta.get("labels") or {}).items()}
    if namespace is not None:
        for key, value in (namespace["metadata"].get("labels") or {}).items():
            labels[_NAMESPACE_LABEL + str(key)] = _text(value)
    labels[_NAMESPACE] = meta.get("namespace", "")
    labels[SERVICE_ACCOUNT] = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    labels[_CLUSTER] = cluster
    return tuple(sorted(f"k8s:{key}={value}" for key, value in labels.items()))


def is_added(key: str) -> bool:
    """Whether a label's key is one of those that `labels_of` adds to the pod's own."""
    return key in (_CLUSTER, SERVICE_ACCOUNT, _NAMESPACE) or key.startswith(_NAMESPACE_LABEL)


def named_ports_of(pod: Object) -> tuple[NamedPort, ...]:
    """The container ports that have names, sorted; of two of one name and protocol the first container's."""
    found: dict[tuple[str, str], NamedPort] = {}
    spec = pod.get("spec") or {}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for port in container.get("ports") or ():
            name, number = port.get("name"), port.get("containerPort")
            protocol = str(port.get("protocol") or "TCP").upper()
            if name and isinstance(number, int) and 0 < number < 65536:
                found.setdefault((name, protocol), NamedPort(name=name, port=number, protocol=protocol))
    return tuple(found[key] for key in sorted(found))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def applied(endpoint: Endpoint, pod: Object, namespace: Object | None, cluster: str) -> Endpoint:
    """An endpoint with what its objects say of it now."""
    return structs.replace(
        endpoint,
        pod_uid=endpoint.pod_uid or pod["metadata"].get("uid", ""),
        labels=labels_of(pod, namespace, cluster),
        named_ports=named_ports_of(pod),
    )
