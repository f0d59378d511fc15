"""This node's CiliumNode: made and kept up by the agent, its ranges written by whoever hands them out.

Its labels are the Node's, which also owns it: what Kubernetes calls a node goes, this goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ciliate.model.ipam import NodeRange
from ciliate.model.kinds import CILIUM_NODE, NODE
from ciliate.store import AlreadyExistsError, NotFoundError, Object, Store

OWNER = "ipam"
_OURS = ("Hostname", "InternalIP", "ExternalIP", "CiliumInternalIP")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NODE = NODE.only("metadata.labels", "status.addresses")


async def publish(
    store: Store,
    name: str,
    addresses: Iterable[str],
    ranges: Iterable[NodeRange],
    own_ranges: bool,
    known: Object | None = None,
) -> Object:
    """Make the object say what this node is. It gets the ranges if it is new or no operator writes them (`own_ranges`).

    known: what was said before; the same is not said again. Returns what is said now. Raises StoreError.
    """
    ranges = list(ranges)
    wanted = _wanted(await _node(store, name), name, list(addresses), ranges)
    cidrs = {"podCIDRs": [r.cidr for r in ranges]}
    if own_ranges:
        wanted["spec"]["ipam"] = cidrs
    if wanted == known:
        return wanted
    if ranges and not own_ranges:
        await _make_with(store, name, cidrs)
    await store.apply(wanted, OWNER)
    return wanted


async def _node(store: Store, name: str) -> Object:
    with suppress(NotFoundError):
        return await store.get(_NODE, name)
    return {}


async def _make_with(store: Store, name: str, cidrs: dict[str, Any]) -> None:
    """Make the object with its ranges, if somebody has deleted it: `publish` does not say them again afterwards."""
    try:
        await store.get(CILIUM_NODE.only("metadata.name"), name)
    except NotFoundError:
        new = {"apiVersion": CILIUM_NODE.api_version, "kind": CILIUM_NODE.kind, "metadata": {"name": name}}
        with suppress(AlreadyExistsError):
            await store.create({**new, "spec": {"ipam": cidrs}})


def _wanted(node: Object, name: str, addresses: list[str], ranges: list[NodeRange]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if node:
        metadata["labels"] = node["metadata"].get("labels") or {}
        owner = {"apiVersion": NODE.api_version, "kind": NODE.kind, "name": name, "uid": node["metadata"]["uid"]}
        metadata["ownerReferences"] = [owner]
    spec: dict[str, Any] = {"addresses": _entries(node, addresses, ranges)}
    if boot_id := _boot_id():
        spec["bootid"] = boot_id
    return {"apiVersion": CILIUM_NODE.api_version, "kind": CILIUM_NODE.kind, "metadata": metadata, "spec": spec}


def _entries(node: Object, addresses: list[str], ranges: list[NodeRange]) -> list[dict[str, str]]:
    """spec.addresses: those of the Node object if it has any, else this machine's; and the routers'."""
    known = [
        {"type": a["type"], "ip": a["address"]}
        for a in (node.get("status") or {}).get("addresses") or ()
        if a.get("type") in _OURS
    ]
    if not any(entry["type"] == "InternalIP" for entry in known):
        known += [{"type": "InternalIP", "ip": address} for address in addresses]
    routers: dict[int, str] = {}
    for node_range in ranges:
        routers.setdefault(node_range.family, node_range.router)
    return known + [{"type": "CiliumInternalIP", "ip": router} for router in routers.values()]


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
