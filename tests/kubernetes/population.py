"""A cluster of many nodes, pods and policies, as objects: what an agent of one of its nodes has to deal with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ciliate.model.kinds import (
    CILIUM_ENDPOINT,
    CILIUM_IDENTITY,
    CILIUM_NETWORK_POLICY,
    CILIUM_NODE,
    NAMESPACE,
    NODE,
    POD,
)
from ciliate.store import Kind

Made = tuple[Kind, dict[str, Any]]
SINCE = "2026-01-01T00:00:00Z"
_FIRST_IDENTITY = 1000
_TOKEN = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}


@dataclass(frozen=True)
class Place:
    """Where a pod is, and what it is."""

    node: str
    host: str
    namespace: str
    app: int
    identity: int
    ipv4: str
    ipv6: str

    @property
    def labels(self) -> dict[str, str]:
        """Of the pod."""
        return {"app": f"app-{self.app}"}


@dataclass(frozen=True)
class Population:
    """How many of each. Pods are spread evenly over nodes and namespaces; pods of one application are alike."""

    nodes: int = 200
    pods: int = 5000
    policies: int = 1000
    namespaces: int = 50
    apps: int = 10  # in each namespace

    def objects(self) -> Iterator[Made]:
        """All of them."""
        for number in range(self.namespaces):
            labels = {"kubernetes.io/metadata.name": namespace(number), "team": f"team-{number % 7}"}
            yield NAMESPACE, {"metadata": {"name": namespace(number), "labels": labels}, "spec": {}}
        for number in range(self.nodes):
            yield from self.node(number)
        for number in range(self.namespaces * self.apps):
            yield CILIUM_IDENTITY, self.identity(number)
        for number in range(self.pods):
            yield POD, self.pod(number)
            yield CILIUM_ENDPOINT, self.endpoint(number)
        for number in range(self.policies):
            yield CILIUM_NETWORK_POLICY, self.policy(number)

    def node(self, number: int) -> Iterator[Made]:
        """A Node and its CiliumNode."""
        name = node_name(number)
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": f"z{number % 3}"}}
        address = {"type": "InternalIP", "address": node_address(number)}
        yield NODE, {"metadata": meta, "spec": {}, "status": {"addresses": [address]}}
        addresses = {"InternalIP": node_address(number), "CiliumInternalIP": pod_address(number, 1)}
        entries = [{"type": kind, "ip": found} for kind, found in addresses.items()]
        yield CILIUM_NODE, {"metadata": meta, "spec": {"addresses": entries, "ipam": {"podCIDRs": pod_cidrs(number)}}}

    def pod(self, number: int) -> dict[str, Any]:
        """A pod as an API server gives it: a few kilobytes."""
        place = self.place(number)
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"app-{place.app}", "uid": "0" * 36}
        return {
            "metadata": {
                "name": pod_name(number),
                "namespace": place.namespace,
                "labels": place.labels,
                "annotations": {"example/checksum": "0" * 64},
                "ownerReferences": [owner],
            },
            "spec": {
                "nodeName": place.node,
                "serviceAccountName": "default",
                "restartPolicy": "Always",
                "dnsPolicy": "ClusterFirst",
                "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler",
                "containers": [_container(place.app)],
                "volumes": [{"name": "token", "projected": {"sources": [_TOKEN]}}],
            },
            "status": _running(place),
        }

    def endpoint(self, number: int) -> dict[str, Any]:
        """The CiliumEndpoint of a pod."""
        place = self.place(number)
        labels = [f"k8s:{key}={value}" for key, value in place.labels.items()]
        addressing = [{"ipv4": place.ipv4, "ipv6": place.ipv6}]
        status = {
            "id": number % 250 + 1,
            "identity": {"id": place.identity, "labels": labels},
            "networking": {"addressing": addressing, "node": place.host},
            "named-ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "state": "ready",
        }
        return {"metadata": {"name": pod_name(number), "namespace": place.namespace}, "status": status}

    def policy(self, number: int) -> dict[str, Any]:
        """A policy: an application may be reached by another one and by a namespace, and may reach an address."""
        space, app = number % self.namespaces, number // self.namespaces % self.apps
        ports = [{"ports": [{"port": str(8000 + number % 100), "protocol": "TCP"}]}]
        other = {"matchLabels": {"app": f"app-{(app + 1) % self.apps}"}}
        friends = {"matchLabels": {"k8s:io.kubernetes.pod.namespace": namespace(number % 7)}}
        spec = {
            "endpointSelector": {"matchLabels": {"app": f"app-{app}"}},
            "ingress": [{"fromEndpoints": [other], "toPorts": ports}, {"fromEndpoints": [friends]}],
            "egress": [{"toEndpoints": [{}]}, {"toCIDR": [f"198.51.{number // 256}.{number % 256}/32"]}],
        }
        return {"metadata": {"name": f"policy-{number}", "namespace": namespace(space)}, "spec": spec}

    def identity(self, number: int) -> dict[str, Any]:
        """The CiliumIdentity of an application of a namespace."""
        space, app = divmod(number, self.apps)
        security = {
            "k8s:app": f"app-{app}",
            "k8s:io.kubernetes.pod.namespace": namespace(space),
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": namespace(space),
            "k8s:io.cilium.k8s.namespace.labels.team": f"team-{space % 7}",
            "k8s:io.cilium.k8s.policy.cluster": "default",
            "k8s:io.cilium.k8s.policy.serviceaccount": "default",
        }
        return {"metadata": {"name": str(_FIRST_IDENTITY + number)}, "security-labels": security}

    def place(self, number: int) -> Place:
        """Where a pod is, and what it is."""
        node, space = number % self.nodes, number % self.namespaces
        app, address = number // self.namespaces % self.apps, 2 + number // self.nodes
        return Place(
            node=node_name(node),
            host=node_address(node),
            namespace=namespace(space),
            app=app,
            identity=_FIRST_IDENTITY + space * self.apps + app,
            ipv4=pod_address(node, address),
            ipv6=f"fd01:0:0:{node:x}::{address:x}",
        )


def _container(app: int) -> dict[str, Any]:
    mount = {"name": "token", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    return {
        "name": "main",
        "image": f"registry.example/app-{app}:v1",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"SETTING_{n}", "value": f"a value of some length, number {n}"} for n in range(12)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [mount],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }


def _running(place: Place) -> dict[str, Any]:
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    container = {
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "image": f"registry.example/app-{place.app}:v1",
        "imageID": "sha256:" + "0" * 64,
        "state": {"running": {"startedAt": SINCE}},
    }
    return {
        "phase": "Running",
        "hostIP": place.host,
        "podIP": place.ipv4,
        "podIPs": [{"ip": place.ipv4}, {"ip": place.ipv6}],
        "startTime": SINCE,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": SINCE} for kind in kinds],
        "containerStatuses": [container],
    }


def namespace(number: int) -> str:
    """The name of a namespace."""
    return f"team-{number}"


def pod_name(number: int) -> str:
    """The name of a pod."""
    return f"pod-{number}"


def node_name(number: int) -> str:
    """The name of a node."""
    return f"node-{number}"


def node_address(number: int) -> str:
    """Its address."""
    return f"172.20.{number // 250}.{number % 250 + 1}"


def pod_address(node: int, number: int) -> str:
    """An address in a node's range."""
    return f"10.{128 + node // 256}.{node % 256}.{number}"


def pod_cidrs(node: int) -> list[str]:
    """A node's ranges."""
    return [f"10.{128 + node // 256}.{node % 256}.0/24", f"fd01:0:0:{node:x}::/64"]
