"""The cluster's ledger of ranges: one object that every assignment must pass through, so that no two overlap.

Each assignment replaces the whole ledger on condition that nobody else has meanwhile: with any number of operators and
agents at once, the second to write must look again. A node's object is changed only after the ledger has its range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from ciliate.model.base import IPNetwork
from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import AlreadyExistsError, ConflictError, Kind, NotFoundError, Object, Store

from ciliate_ipam.assignment import Assignment, NodeWish, Pools, assign

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps", True, ("cm",), has_status=False)
NAMESPACE, NAME, KEY = "kube-system", "ciliate-ipam", "ranges"


class LedgerError(Exception):
    """The ledger's object holds what this version can't read."""


async def hand_out(
    store: Store, pools: Pools, names: set[str] | None = None, avoid: Iterable[IPNetwork] = ()
) -> dict[str, str]:
    """Give ranges to the nodes of these names (None: all) that lack one. The errors by node; empty: it has all.

    Raises LedgerError, UnavailableError.
    """
    while True:
        held, revision = await _read(store)
        nodes = {n["metadata"]["name"]: n for n in (await store.list(CILIUM_NODE)).items}
        wishes = {name: _wish(node, names is None or name in names) for name, node in nodes.items()}
        result = assign(pools, held, wishes, avoid)
        if result.ledger != held and not await _write(store, result.ledger, revision):
            continue
        await _tell(store, nodes, result)
        return result.errors


async def _read(store: Store) -> tuple[dict[str, str], str]:
    """(range to node, revision; empty if there is no ledger)."""
    try:
        found = await store.get(CONFIG_MAP, NAME, NAMESPACE)
    except NotFoundError:
        return {}, ""
    try:
        held = msgspec.json.decode(found["data"][KEY], type=dict[str, str])
    except (KeyError, TypeError, msgspec.MsgspecError) as error:
        raise LedgerError(
            f"configmap {NAMESPACE}/{NAME} holds no ledger of pod ranges ({error!r}); delete it:"
            " it is made anew from the CiliumNodes"
        ) from None
    return held, found["metadata"]["resourceVersion"]


async def _write(store: Store, held: Mapping[str, str], revision: str) -> bool:
    """Replace the ledger of a revision; False if somebody else was first."""
    metadata = {"name": NAME, "namespace": NAMESPACE}
    obj: Object = {"apiVersion": "v1", "kind": "ConfigMap", "data": {KEY: msgspec.json.encode(held).decode()}}
    try:
        if revision:
            await store.update({**obj, "metadata": {**metadata, "resourceVersion": revision}})
        else:
            await store.create({**obj, "metadata": metadata})
    except (ConflictError, AlreadyExistsError, NotFoundError):
        return False
    return True


def _wish(node: Object, serve: bool) -> NodeWish:
    spec = node.get("spec") or {}
    addresses = [a["ip"] for a in spec.get("addresses") or () if a.get("type") in ("InternalIP", "ExternalIP")]
    return NodeWish(list((spec.get("ipam") or {}).get("podCIDRs") or ()), addresses, serve)


async def _tell(store: Store, nodes: dict[str, Object], result: Assignment) -> None:
    """Write ranges and errors into the nodes' objects, where they differ."""
    for name, cidrs in result.cidrs.items():
        node = nodes[name]
        if cidrs != _wish(node, True).cidrs:
            nodes[name] = await _change(store, node, "update", ("spec", "ipam", "podCIDRs"), cidrs)
    path = ("status", "ipam", "operator-status", "error")
    for name, error in result.errors.items():
        node = nodes[name]
        if node and error != (_get(node, path) or ""):
            await _change(store, node, "update_status", path, error)


async def _change(store: Store, node: Object, method: str, path: tuple[str, ...], value: Any) -> Object:
    """Set one field of a node's object, whatever else changes in it meanwhile; empty if the node is gone."""
    while True:
        branch = node
        for part in path[:-1]:
            branch = branch.setdefault(part, {})
        branch[path[-1]] = value
        try:
            changed: Object = await getattr(store, method)(node)
        except ConflictError:
            try:
                node = await store.get(CILIUM_NODE, node["metadata"]["name"])
            except NotFoundError:
                return {}
        except NotFoundError:
            return {}
        else:
            return changed


def _get(node: Object, path: tuple[str, ...]) -> Any:
    value: Any = node
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def operator_error(node: Object) -> str:
    """What the operator says is wrong with a node's ranges; empty: nothing."""
    return str(_get(node, ("status", "ipam", "operator-status", "error")) or "")


def pod_cidrs(node: Object) -> list[str]:
    """The ranges that a node's object holds."""
    return _wish(node, True).cidrs
