"""A pod's CiliumEndpoint, from the rows of tables. Pure."""

from __future__ import annotations

from typing import Any

from ciliate.model.endpoint import Endpoint, EndpointPolicy
from ciliate.model.kinds import CILIUM_ENDPOINT, POD
from ciliate.store import Object

from ciliate_cni.labels import SERVICE_ACCOUNT, is_added

READY, WAITING = "ready", "waiting-for-identity"


def state_of(endpoint: Endpoint, policy: EndpointPolicy | None) -> str:
    """Cilium's name of an endpoint's state."""
    return READY if policy is not None and policy.generation == endpoint.generation else WAITING


def endpoint_object(
    endpoint: Endpoint, policy: EndpointPolicy | None, identity_labels: tuple[str, ...], node_address: str
) -> Object:
    """The object as it is to be. policy, identity_labels: as far as they are known; node_address: where packets go."""
    labels = dict(label.removeprefix("k8s:").partition("=")[::2] for label in endpoint.labels)
    owner = {"apiVersion": POD.api_version, "kind": POD.kind, "name": endpoint.pod, "uid": endpoint.pod_uid}
    status: dict[str, Any] = {
        "id": endpoint.id,
        "state": state_of(endpoint, policy),
        "external-identifiers": _identifiers(endpoint),
        "networking": {"addressing": [_addresses(endpoint)], "node": node_address},
        "encryption": {"key": 0},
        "named-ports": [{"name": p.name, "port": p.port, "protocol": p.protocol} for p in endpoint.named_ports],
    }
    if account := labels.get(SERVICE_ACCOUNT):
        status["service-account"] = account
    if policy is not None and status["state"] == READY:
        status["identity"] = {"id": policy.identity, "labels": list(identity_labels)}
        enforcing = {"ingress": policy.ingress_enforcing, "egress": policy.egress_enforcing}
        status["policy"] = {direction: _enforcement(value) for direction, value in enforcing.items()}
    return {
        "apiVersion": CILIUM_ENDPOINT.api_version,
        "kind": CILIUM_ENDPOINT.kind,
        "metadata": {
            "name": endpoint.pod,
            "namespace": endpoint.namespace,
            "labels": {key: value for key, value in labels.items() if not is_added(key)},
            "ownerReferences": [owner],
        },
        "status": status,
    }


def pod_uid_of(obj: Object) -> str:
    """The uid of the pod whose CiliumEndpoint an object is; empty if it does not say."""
    owners = obj["metadata"].get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("kind") == POD.kind:
            return str(owner.get("uid", ""))
    return ""


def _identifiers(endpoint: Endpoint) -> dict[str, str]:
    return {
        "cni-attachment-id": f"{endpoint.container_id}:{endpoint.interface}",
        "container-id": endpoint.container_id,
        "k8s-namespace": endpoint.namespace,
        "k8s-pod-name": endpoint.pod,
        "pod-name": f"{endpoint.namespace}/{endpoint.pod}",
    }


def _addresses(endpoint: Endpoint) -> dict[str, str]:
    return {family: address for family, address in (("ipv4", endpoint.ipv4), ("ipv6", endpoint.ipv6)) if address}


def _enforcement(enforcing: bool) -> dict[str, Any]:
    return {"enforcing": enforcing, "state": "enforcing" if enforcing else "non-enforcing"}
