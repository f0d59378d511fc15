"""Endpoints whose rows are lost, with the table file and its copy, taken up again from what the kernel has of them.

A row is written before the kernel is told, and deleted after it. So an entry of the map `endpoints` that is valid,
whose pair of devices stands and of which there is no row, is a pod's whose row was lost. Its labels are those of the
Pod that has its address, else of its identity. Which container it belongs to is seen when a call names that
(`Endpoints.recognise`). An endpoint whose labels nobody knows would get other policies than it has: for that we wait,
and touch nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from ciliate.context import Context
from ciliate.model.base import unpack_address
from ciliate.model.endpoint import ENDPOINT_POLICY_MAP, ENDPOINT_VALID, ENDPOINTS_MAP, Endpoint
from ciliate.model.identity import CLUSTER_SCOPE
from ciliate.model.kinds import CILIUM_IDENTITY
from ciliate.store import NotFoundError, Object, StoreError
from msgspec import structs
from numpy.typing import NDArray

from ciliate_cni import labels
from ciliate_cni.attach import Devices, host_name
from ciliate_cni.deletequeue import DeleteQueue
from ciliate_cni.endpoints import NAMELESS, Endpoints
from ciliate_cni.links import Link
from ciliate_cni.pods import Pods

CONDITION = "recovery"
_NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace="
_LOOK = 1.0


@dataclass(frozen=True)
class Lost:
    """What the kernel has of an endpoint."""

    id: int
    generation: int
    ipv4: str | None
    ipv6: str | None
    mac: str
    host_mac: str
    link: Link
    identity: int

    def belongs_to(self, container_id: str, interface: str) -> bool:
        """Whether it was made for this attachment."""
        return host_name(container_id, interface, self.generation) == self.link.name


def find(
    entries: NDArray[Any], identities: NDArray[Any], links: Mapping[int, Link], known: Iterable[int]
) -> list[Lost]:
    """Endpoints without a row. entries, identities: the memory of `endpoints` and `endpoint_policy`; links: by id."""
    valid = set(np.flatnonzero(entries["flags"] & ENDPOINT_VALID).tolist())
    candidates = sorted(valid & links.keys() - set(known))
    return [_lost(number, entries[number], int(identities["identity"][number]), links[number]) for number in candidates]


def _lost(number: int, entry: Any, identity: int, link: Link) -> Lost:
    ipv4, ipv6 = (_address(entry[name]) for name in ("ipv4", "ipv6"))
    mac, host_mac = (bytes(entry[name]).hex(":") for name in ("mac", "host_mac"))
    return Lost(number, int(entry["generation"]), ipv4, ipv6, mac, host_mac, link, identity)


def _address(packed: NDArray[np.uint8]) -> str | None:
    return str(unpack_address(packed.tobytes())) if packed.any() else None


def pod_of(addresses: Set[str | None], pods: Iterable[Object]) -> Object | None:
    """The Pod that has one of some addresses."""
    for pod in pods:
        status = pod.get("status") or {}
        has = {entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")}
        if has & addresses and status.get("phase") not in (
            "Succeeded",
            "Failed",
        ):  # those keep what others may have now
            return pod
    return None


def named(row: Endpoint, pod: Object, namespaces: Mapping[str, Object], cluster: str) -> Endpoint:
    """A row with what its Pod says."""
    meta = pod["metadata"]
    whose = structs.replace(row, namespace=meta.get("namespace", ""), pod=meta["name"])
    return labels.applied(whose, pod, namespaces.get(whose.namespace), cluster)


class Recovery:
    """Makes rows anew, at the start, before anything is pruned on the word of those that there are."""

    def __init__(self, context: Context, endpoints: Endpoints, pods: Pods, queue: DeleteQueue, network: str) -> None:
        self._context = context
        self._endpoints = endpoints
        self._pods = pods
        self._queue = queue
        self._network = network

    async def run(self, devices: Devices) -> None:
        """Return when there is no endpoint without a row: at once, but for a loss."""
        log, health, waiting = self._context.log, self._context.health, ""
        while lost := await self._find(devices):
            log.warning("endpoints without rows: is the table file lost?", ids=[one.id for one in lost])
            health.not_ready(f"the rows of {len(lost)} pods are lost; waits for all Pods of the store", CONDITION)
            await self._pods.synced()
            rows, unknown = await self._rows(lost)
            self._endpoints.restore(rows)
            log.warning("endpoints recovered", pods={row.id: f"{row.namespace}/{row.pod}" for row in rows})
            if unknown:
                waiting = ", ".join(f"{one.id} ({one.link.name}, {one.ipv4 or one.ipv6})" for one in unknown)
                health.not_ready(
                    f"nobody knows the labels of endpoints {waiting}: they keep their devices and policies, and no"
                    " new pod is connected, until their Pods or CiliumIdentities are there, or they are deleted",
                    CONDITION,
                )
                await asyncio.sleep(_LOOK)
        health.drop(CONDITION)

    async def _find(self, devices: Devices) -> list[Lost]:
        maps = self._context.maps
        entries, policies = maps.open(ENDPOINTS_MAP).mmap(), maps.open(ENDPOINT_POLICY_MAP).mmap()
        links = await self._context.worker.call(devices.made)
        found = find(entries, policies, links, [one.id for one in self._endpoints.all()])
        deleted = [request.attachment for _, request in self._queue.pending()] if found else []
        return [one for one in found if not any(one.belongs_to(c.decode(), i.decode()) for c, i in deleted)]

    async def _rows(self, lost: list[Lost]) -> tuple[list[Endpoint], list[Lost]]:
        rows, unknown = [], []
        for one in lost:
            row = await self._row(one)
            if row is None:
                unknown.append(one)
            else:
                rows.append(row)
        return rows, unknown

    async def _row(self, lost: Lost) -> Endpoint | None:
        row = Endpoint(
            id=lost.id, generation=lost.generation, container_id=f"{NAMELESS}{lost.link.name}", interface="", netns="",
            namespace="", pod="", host_interface=lost.link.name, ipv4=lost.ipv4, ipv6=lost.ipv6, mac=lost.mac,
            host_mac=lost.host_mac, mtu=lost.link.mtu, network=self._network,
        )  # fmt: skip
        pod = pod_of({lost.ipv4, lost.ipv6}, self._pods.pods.values())
        if pod is not None:
            return named(row, pod, self._pods.namespaces, self._context.node.cluster)
        found = await self._labels_of(lost.identity)
        if found is None:
            return None
        namespaces = [text.removeprefix(_NAMESPACE_LABEL) for text in found if text.startswith(_NAMESPACE_LABEL)]
        return structs.replace(row, namespace="".join(namespaces[:1]), labels=found)

    async def _labels_of(self, identity: int) -> tuple[str, ...] | None:
        """Those that decide an identity; none of one that is the same for all pods without labels."""
        if identity not in CLUSTER_SCOPE:
            return ()
        try:
            found = await self._context.store.get(CILIUM_IDENTITY, str(identity))
        except NotFoundError:
            return None
        except StoreError as error:
            self._context.log.warning("an identity can't be read", identity=identity, error=str(error))
            return None
        return tuple(sorted(f"{key}={value}" for key, value in (found.get("security-labels") or {}).items()))
