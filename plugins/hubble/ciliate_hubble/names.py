"""Who an address, an endpoint or an identity is: what tables and objects say, by key.

What is gone stays known until its key is given anew, as flows come after the fact; of the gone, the latest are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import numpy as np
from ciliate.model.base import pack_address
from ciliate.model.endpoint import ENDPOINTS_MAX, Endpoint, EndpointPolicy
from ciliate.model.identity import CLUSTER_SCOPE, Identity
from numpy.typing import NDArray

from ciliate_hubble.ends import End, Workload
from ciliate_hubble.prefixes import Prefixes

GONE_KEPT = 65_536
CLUSTER_LABEL = "k8s:io.cilium.k8s.policy.cluster="
NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace="

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """A mapping that keeps the last value of deleted keys, the latest GONE_KEPT of them."""

    def __init__(self) -> None:
        self.live: dict[K, V] = {}
        self._gone: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value of a key, or the last that it had."""
        value = self.live.get(key)
        return self._gone.get(key) if value is None else value

    def put(self, key: K, value: V) -> None:
        """Set a key's value."""
        self._gone.pop(key, None)
        self.live[key] = value

    def delete(self, key: K) -> None:
        """The key has no value any more."""
        value = self.live.pop(key, None)
        if value is None:
            return
        self._gone[key] = value
        if len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]


class PodName(tuple[str, str]):
    """Namespace and name."""

    __slots__ = ()


class Names:
    """Everything that ends are made of. Each change tells `forget` what answers depend on it."""

    def __init__(self, cluster: str, forget: Callable[[Hashable], None]) -> None:
        self._cluster = cluster
        self._forget = forget
        self._endpoints: Remembered[int, Endpoint] = Remembered()
        self._labels: Remembered[int, tuple[str, ...]] = Remembered()
        self._pods: Remembered[bytes, PodName] = Remembered()  # by packed address
        self._workloads: Remembered[PodName, tuple[Workload, ...]] = Remembered()
        self.prefixes = Prefixes()
        self.identities: NDArray[np.uint32] = np.zeros(ENDPOINTS_MAX, np.uint32)  # by endpoint id
        self.defaults: NDArray[np.uint32] = np.zeros((2, ENDPOINTS_MAX), np.uint32)  # by Direction and endpoint id

    def put_endpoint(self, row: Endpoint) -> None:
        """An endpoint of this node."""
        self._endpoints.put(row.id, row)
        self._forget(("endpoint", row.id))
        for address in filter(None, (row.ipv4, row.ipv6)):
            self._pods.put(pack_address(address), PodName((row.namespace, row.pod)))

    def delete_endpoint(self, number: int) -> None:
        """It is gone; its last packets may still come."""
        self._endpoints.delete(number)

    def put_policy(self, row: EndpointPolicy) -> None:
        """What is realised for an endpoint."""
        if row.id < ENDPOINTS_MAX:
            self.identities[row.id] = row.identity
            self.defaults[:, row.id] = row.ingress_default, row.egress_default
            self._forget(("endpoint", row.id))

    def put_identity(self, row: Identity) -> None:
        """An identity's labels."""
        self._labels.put(row.id, row.labels)
        self._forget(("identity", row.id))

    def delete_identity(self, number: int) -> None:
        """It is gone."""
        self._labels.delete(number)

    def put_pod(self, name: PodName, addresses: Iterable[bytes], workloads: tuple[Workload, ...]) -> None:
        """A pod of any node. Addresses are those that are its alone."""
        if self._workloads.live.get(name) != workloads:
            self._workloads.put(name, workloads)
            self._forget(("pod", name))
        for address in addresses:
            if self._pods.live.get(address) != name:
                self._pods.put(address, name)
                self._forget(("address", address))

    def delete_pod(self, name: PodName, addresses: Iterable[bytes]) -> None:
        """It is gone."""
        self._workloads.delete(name)
        self.delete_addresses(name, addresses)

    def delete_addresses(self, name: PodName, addresses: Iterable[bytes]) -> None:
        """Addresses are a pod's no more."""
        for address in addresses:
            if self._pods.live.get(address) == name:
                self._pods.delete(address)

    def gone(self, pods: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of some pods (namespace and name) that there are no more."""
        local = {(row.namespace, row.pod) for row in self._endpoints.live.values()}
        return {pod for pod in pods if pod not in local and pod not in self._workloads.live}

    def prefixes_changed(self) -> None:
        """The ipcache has changed."""
        self._forget("prefixes")

    def pod_at(self, address: bytes) -> tuple[str, str]:
        """Namespace and name of the pod that has an address; empty if none is known."""
        return self._pods.get(address) or ("", "")

    def labels_of(self, identity: int) -> tuple[str, ...]:
        """An identity's labels; empty if it is unknown."""
        return self._labels.get(identity) or ()

    def resolve(self, endpoint: int, identity: int, address: bytes) -> tuple[End, list[Hashable]]:
        """Who that is, and what the answer depends on. Identity 0: nobody has said."""
        made_of: list[Hashable] = []
        if not identity and endpoint:
            identity = int(self.identities[endpoint]) if endpoint < ENDPOINTS_MAX else 0
            made_of.append(("endpoint", endpoint))
        elif not identity and address:
            identity = self.prefixes.identity(address)
            made_of.append("prefixes")
        made_of.append(("identity", identity))
        labels = self._labels.get(identity) or ()
        if endpoint:
            made_of.append(("endpoint", endpoint))
            return self._local(endpoint, identity, labels, made_of), made_of
        return self._remote(identity, labels, address, made_of), made_of

    def _local(self, endpoint: int, identity: int, labels: tuple[str, ...], made_of: list[Hashable]) -> End:
        row = self._endpoints.get(endpoint)
        if row is None:
            return End(identity, endpoint, _of(labels, NAMESPACE_LABEL), labels=labels, cluster=self._cluster)
        name = PodName((row.namespace, row.pod))
        made_of.append(("pod", name))
        workloads = self._workloads.get(name) or ()
        cluster = _of(labels, CLUSTER_LABEL) or self._cluster
        return End(identity, endpoint, *name, labels, workloads, cluster, row.host_interface)

    def _remote(self, identity: int, labels: tuple[str, ...], address: bytes, made_of: list[Hashable]) -> End:
        name = self._pods.get(address) if address and identity in CLUSTER_SCOPE else None
        if address:
            made_of.append(("address", address))
        cluster = _of(labels, CLUSTER_LABEL)
        if name is None:
            return End(identity, 0, _of(labels, NAMESPACE_LABEL), labels=labels, cluster=cluster)
        made_of.append(("pod", name))
        return End(identity, 0, *name, labels, self._workloads.get(name) or (), cluster)


def _of(labels: tuple[str, ...], prefix: str) -> str:
    return next((label[len(prefix) :] for label in labels if label.startswith(prefix)), "")
