"""The cluster's ledger of ranges: one object that every assignment must pass through, so that no two overlap.

Each assignment replaces the whole ledger on condition that nobody else has meanwhile: with any number of operators and
agents at once, the second to write must look again. A node's object is changed only after the ledger has its range.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from ciliate.model.base import IPNetwork
from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import AlreadyExistsError, ConflictError, Kind, NotFoundError, Object, Store

from ciliate_ipam.assignment import Assignment, NodeWish, Pools, assign

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps", True, ("cm",), has_status=False)
NAMESPACE, NAME, KEY = "kube-system", "ciliate-ipam", "ranges"
READ = CILIUM_NODE.only("spec.ipam.podCIDRs", "spec.addresses", "status.ipam")


class LedgerError(Exception):
    """The ledger's object holds what this version can't read."""


async def hand_out(
    store: Store,
    pools: Pools,
    names: set[str] | None = None,
    avoid: Iterable[IPNetwork] = (),
    namespace: str = NAMESPACE,
) -> dict[str, str]:
    """Give ranges to the nodes of these names (None: all) that lack one. The errors by node; empty: it has all.

    namespace: of the ledger. Raises LedgerError, StoreError. Whenever this is ended, the ledger holds all that any node
    was told; what was not told yet, the next call tells.
    """
    while True:
        held, revision = await _read(store, namespace)
        nodes = {n["metadata"]["name"]: n for n in (await store.list(READ)).items}
        wishes = {name: _wish(node, names is None or name in names) for name, node in nodes.items()}
        result = assign(pools, held, wishes, avoid)
        if result.ledger != held and not await _write(store, result.ledger, revision, namespace):
            continue
        await _tell(store, nodes, result)
        return result.errors


async def _read(store: Store, namespace: str) -> tuple[dict[str, str], str]:
    """(range to node, revision; empty if there is no ledger)."""
    try:
        found = await store.get(CONFIG_MAP, NAME, namespace)
    except NotFoundError:
        return {}, ""
    try:
        held = msgspec.json.decode(found["data"][KEY], type=dict[str, str])
    except (KeyError, TypeError, msgspec.MsgspecError) as error:
        raise LedgerError(
            f"configmap {namespace}/{NAME} holds no ledger of pod ranges ({error!r}); delete it:"
            " it is made anew from the CiliumNodes"
        ) from None
    return held, found["metadata"]["resourceVersion"]


async def _write(store: Store, held: Mapping[str, str], revision: str, namespace: str) -> bool:
    """Replace the ledger of a revision; False if somebody else was first."""
    metadata = {"name": NAME, "namespace": namespace}
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
    listed = _get(node, ("spec", "addresses"))
    addresses = [a for a in listed if isinstance(a, dict)] if isinstance(listed, list) else []
    own = [str(a.get("ip")) for a in addresses if a.get("type") in ("InternalIP", "ExternalIP")]
    return NodeWish(pod_cidrs(node), own, serve)


async def _tell(store: Store, nodes: dict[str, Object], result: Assignment) -> None:
    """Write ranges and errors into the nodes' objects, where they differ."""
    for name, cidrs in result.cidrs.items():
        if cidrs != _get(nodes[name], ("spec", "ipam", "podCIDRs")):
            await _change(store, nodes[name], {"spec": {"ipam": {"podCIDRs": cidrs}}})
    for name, error in result.errors.items():
        if error != operator_error(nodes[name]):
            status = {"ipam": {"operator-status": {"error": error}}}
            await _change(store, nodes[name], {"status": status}, status=True)


async def _change(store: Store, node: Object, changes: Object, status: bool = False) -> None:
    """Set some of a node's object, whatever else changes in it meanwhile. One that is gone, or another, stays."""
    metadata = {key: node["metadata"][key] for key in ("name", "uid")}
    with suppress(NotFoundError, ConflictError):
        await store.patch(CILIUM_NODE, {"metadata": metadata, **changes}, status)


def _get(node: Object, path: tuple[str, ...]) -> Any:
    value: Any = node
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def operator_error(node: Object) -> str:
    """What the operator says is wrong with a node's ranges; empty: nothing."""
    return str(_get(node, ("status", "ipam", "operator-status", "error")) or "")


def pod_cidrs(node: Object) -> list[str]:
    """The ranges that a node's object holds. What somebody has edited into something else is a text that is none."""
    found = _get(node, ("spec", "ipam", "podCIDRs"))
    return [str(one) for one in (found if isinstance(found, list) else [found]) if one is not None]


def family_of(cidr: str) -> int:
    """4, 6, or 0: not a range."""
    try:
        return ipaddress.ip_network(cidr).version
    except ValueError:
        return 0
