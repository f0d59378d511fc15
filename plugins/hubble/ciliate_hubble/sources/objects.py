"""The objects that flows are joined with: which pod has an address, what it belongs to; the node's own labels."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from ciliate.model.base import pack_address
from ciliate.model.kinds import CILIUM_ENDPOINT, NODE, POD
from ciliate.store import Kind, Object, Store, follow, object_key

from ciliate_hubble.ends import Workload
from ciliate_hubble.names import Names, PodName

SLICE = 128
"""Objects between two looks at what else is to be done."""
_CRON_JOB = re.compile(r"(.+)-\d{8,10}")


class PodSource:
    """Follows the objects of one kind, each of which is a pod. Keeps of them what names need, and no more."""

    def __init__(self, store: Store, names: Names, kind: Kind) -> None:
        self._store = store
        self._names = names
        self._kind = kind
        self._addresses: dict[PodName, tuple[bytes, ...]] = {}

    async def run(self) -> None:
        """For ever."""
        async for changes in follow(self._store, self._kind):
            for number, obj in enumerate(changes.upserts):
                self._put(obj)
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            for key in changes.deletes:
                self._delete(PodName(key))

    def _put(self, obj: Object) -> None:
        name = PodName(object_key(obj))
        addresses, workloads = of_pod(obj) if self._kind is POD else of_endpoint(obj)
        before = self._addresses.get(name, ())
        self._addresses[name] = addresses
        self._names.put_pod(name, addresses, workloads)
        self._names.delete_addresses(name, [address for address in before if address not in addresses])

    def _delete(self, name: PodName) -> None:
        self._names.delete_pod(name, self._addresses.pop(name, ()))


async def follow_node(store: Store, node: str, changed: Callable[[tuple[str, ...]], None]) -> None:
    """Tell the node's labels, as `key=value`, sorted, whenever they change; for ever."""
    async for changes in follow(store, NODE, fields={"metadata.name": node}):
        for obj in changes.upserts:
            labels = obj["metadata"].get("labels") or {}
            changed(tuple(sorted(f"{key}={value}" for key, value in labels.items())))


def pod_source(store: Store, names: Names, kind: str) -> PodSource | None:
    """By the setting `remote_pods`."""
    kinds = {"pods": POD, "ciliumendpoints": CILIUM_ENDPOINT}
    return PodSource(store, names, kinds[kind]) if kind in kinds else None


def of_pod(pod: Object) -> tuple[tuple[bytes, ...], tuple[Workload, ...]]:
    """A Pod's addresses, as far as they are its own, and its workload."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    ips: list[str] = [one.get("ip", "") for one in status.get("podIPs") or []] or [status.get("podIP") or ""]
    if spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        ips = []
    return _packed(ips), (workload_of(pod),)


def of_endpoint(endpoint: Object) -> tuple[tuple[bytes, ...], tuple[Workload, ...]]:
    """A CiliumEndpoint's addresses; it says nothing of workloads."""
    networking = (endpoint.get("status") or {}).get("networking") or {}
    pairs = networking.get("addressing") or []
    return _packed(pair.get(family, "") for pair in pairs for family in ("ipv4", "ipv6")), ()


def workload_of(pod: Object) -> Workload:
    """What a pod belongs to, as Cilium names it: the owner's owner where its name shows; itself, if nobody owns it."""
    meta = pod["metadata"]
    owner = next((one for one in meta.get("ownerReferences") or [] if one.get("controller")), None)
    if owner is None:
        return Workload("Pod", meta["name"])
    kind, name = owner.get("kind", ""), owner.get("name", "")
    hash_label = (meta.get("labels") or {}).get("pod-template-hash", "")
    if kind == "ReplicaSet" and hash_label and name.endswith(f"-{hash_label}"):
        return Workload("Deployment", name.removesuffix(f"-{hash_label}"))
    if kind == "ReplicationController" and (config := (meta.get("annotations") or {}).get(_DEPLOYMENT_CONFIG)):
        return Workload("DeploymentConfig", config)
    if kind == "Job" and (cron := _CRON_JOB.fullmatch(name)):
        return Workload("CronJob", cron[1])
    return Workload(kind, name)


_DEPLOYMENT_CONFIG = "openshift.io/deployment-config.name"


def _packed(texts: Any) -> tuple[bytes, ...]:
    found = []
    for text in texts:
        try:
            found.append(pack_address(text))
        except ValueError:
            continue  # none yet
    return tuple(found)
