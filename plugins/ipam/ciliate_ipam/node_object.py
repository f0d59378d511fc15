"""This node's CiliumNode: made and kept up by the agent, its ranges written by whoever hands them out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from ciliate.model.ipam import NodeRange
from ciliate.model.kinds import CILIUM_NODE, NODE
from ciliate.store import AlreadyExistsError, ConflictError, NotFoundError, Object, Store

_OURS = ("Hostname", "InternalIP", "ExternalIP", "CiliumInternalIP")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def publish(
    store: Store, name: str, addresses: Iterable[str], ranges: Iterable[NodeRange], own_ranges: bool
) -> Object:
    """Make the object say what this node is. It gets the ranges if it is new or no operator writes them (`own_ranges`).

    Raises UnavailableError.
    """
    ranges = list(ranges)
    node = await _node(store, name)
    entries = _entries(node, name, list(addresses), ranges)
    labels = (node.get("metadata") or {}).get("labels") or {}
    while True:
        try:
            return await _write(store, name, labels, entries, [r.cidr for r in ranges], own_ranges)
        except (ConflictError, AlreadyExistsError, NotFoundError):
            continue


async def _node(store: Store, name: str) -> Object:
    with contextlib.suppress(NotFoundError):
        return await store.get(NODE, name)
    return {}


def _entries(node: Object, name: str, addresses: list[str], ranges: list[NodeRange]) -> list[dict[str, str]]:
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


async def _write(
    store: Store, name: str, labels: dict[str, str], entries: list[dict[str, str]], cidrs: list[str], own_ranges: bool
) -> Object:
    try:
        current = await store.get(CILIUM_NODE, name)
    except NotFoundError:
        current = {"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}}
    new = "uid" not in current["metadata"]
    spec = {**(current.get("spec") or {}), "addresses": entries}
    if boot_id := _boot_id():
        spec["bootid"] = boot_id
    if own_ranges or (new and cidrs):
        spec["ipam"] = {**(spec.get("ipam") or {}), "podCIDRs": cidrs}
    metadata = {**current["metadata"], "labels": {**(current["metadata"].get("labels") or {}), **labels}}
    changed = {**current, "metadata": metadata, "spec": spec}
    return await (store.create(changed) if new else store.update(changed))


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
