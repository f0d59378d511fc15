"""A small cluster for tests: parties, an engine that knows them, and the kernel's lookups done over its answers."""

from __future__ import annotations

import ipaddress
from typing import Any

from ciliate.model.endpoint import NamedPort
from ciliate_policy.changes import EngineOptions, LocalEndpoint
from ciliate_policy.cidrs import network_of
from ciliate_policy.engine import Engine
from ciliate_policy.identities import world_identity
from ciliate_policy.objects import read_cidr_group, read_policy
from ciliate_policy.resolve import Resolved

from tests.unit.policy.oracle import Party

CLUSTER = "k8s:io.cilium.k8s.policy.cluster=default"
NAMES = {6: "TCP", 17: "UDP", 132: "SCTP"}


def pod(namespace: str, ports: dict[str, tuple[int, int]] | None = None, **labels: str) -> Party:
    """A pod's labels and port names."""
    fixed = [f"k8s:io.kubernetes.pod.namespace={namespace}", f"k8s:io.cilium.k8s.namespace.labels.team={namespace}"]
    own = [f"k8s:{key}={value}" for key, value in labels.items()]
    return {"labels": sorted([*fixed, CLUSTER, *own]), "ports": ports or {}}


def outside(address: str) -> Party:
    """An address outside the cluster."""
    return {"labels": [f"reserved:world-ipv{ipaddress.ip_address(address).version}"], "ip": address}


def reserved(name: str) -> Party:
    """A reserved party."""
    return {"labels": [f"reserved:{name}"]}


class Cluster:
    """An engine with every pod as a local endpoint."""

    def __init__(self, pods: list[Party], options: EngineOptions | None = None) -> None:
        self.engine = Engine(options)
        self.identities: dict[tuple[str, ...], int] = {}
        self.endpoint_of: dict[int, int] = {}
        for number, party in enumerate(pods, 1):
            identity = self.identity(party)
            named = tuple(
                NamedPort(name=name, port=port, protocol=NAMES[protocol])
                for name, (protocol, port) in party["ports"].items()
            )
            self.engine.set_endpoint(LocalEndpoint(number, identity, named))
            self.endpoint_of[id(party)] = number

    def identity(self, party: Party) -> int:
        """The identity of a pod, allocated if need be."""
        labels = tuple(party["labels"])
        if labels not in self.identities:
            self.identities[labels] = 256 + len(self.identities)
            self.engine.set_identity(self.identities[labels], labels)
        return self.identities[labels]

    def apply(self, manifests: list[dict[str, Any]], groups: list[dict[str, Any]] | None = None) -> None:
        """Apply objects and settle."""
        for group in groups or []:
            self.engine.set_group(read_cidr_group(group)[0])
        for manifest in manifests:
            policy = read_policy(manifest)
            assert not policy.invalid, policy.invalid
            self.engine.set_policy(policy)
        self.engine.settle_all()

    def resolved(self, subject: Party, direction: str) -> Resolved:
        """A pod's policy in a direction."""
        policies = self.engine.realised[self.endpoint_of[id(subject)]]
        return policies.ingress if direction == "ingress" else policies.egress

    def peer_identity(self, peer: Party) -> int:
        """What the ipcache would say."""
        if peer.get("ip"):
            address = ipaddress.ip_address(peer["ip"])
            found = [
                (network.prefixlen, identity)
                for prefix, identity in self.engine.cidrs.regions.items()
                if (network := network_of(prefix)).version == address.version and address in network
            ]
            return max(found)[1] if found else world_identity(address.version)
        labels = tuple(peer["labels"])
        if labels in self.identities:
            return self.identities[labels]
        return next(number for number, known in self.engine.labels.items() if known[0] == labels[0])

    def verdict(self, subject: Party, peer: Party, direction: str, protocol: int, port: int) -> str:
        """What the kernel would decide."""
        found = self.resolved(subject, direction).lookup(self.peer_identity(peer), protocol, port)
        if found is None:
            return "default-deny"
        return "deny" if found[2].deny else "allow"
