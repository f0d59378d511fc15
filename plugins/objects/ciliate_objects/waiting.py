"""`--wait`: until a policy is enforced on every node, or a pod is Ready."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from ciliate.cli.dispatch import CommandError
from ciliate.model.kinds import (
    CILIUM_CLUSTERWIDE_NETWORK_POLICY,
    CILIUM_NETWORK_POLICY,
    NETWORK_POLICY,
    NODE,
    POD,
)
from ciliate.store import Kind, Object, Store, follow

from ciliate_objects.kinds import called

POLICIES = (CILIUM_NETWORK_POLICY, CILIUM_CLUSTERWIDE_NETWORK_POLICY, NETWORK_POLICY)


async def wait_for(store: Store, kind: Kind, obj: Object, timeout: float) -> None:
    """Wait until an object does what it says; kinds that nothing is known of are done at once. Raises CommandError."""
    if kind not in (*POLICIES, POD):
        return
    meta = obj["metadata"]
    name, namespace = meta["name"], meta.get("namespace", "")
    nodes = [n["metadata"]["name"] for n in (await store.list(NODE)).items] if kind in POLICIES else []
    lacking = "nothing is known of it"
    try:
        async with (
            asyncio.timeout(timeout),
            aclosing(follow(store, kind, namespace or None, {"metadata.name": name})) as changes,  # type: ignore[type-var]
        ):
            async for change in changes:
                if change.deletes or (not change.upserts and change.complete):
                    raise CommandError(f"{called(kind, name)} was deleted meanwhile")
                current = change.upserts[-1]
                lacking = _pod_lacks(current) if kind is POD else policy_lacks(current, nodes)
                if not lacking:
                    return
    except TimeoutError:
        raise CommandError(f"{called(kind, name)}: after {timeout:g} s {lacking}") from None


def policy_lacks(policy: Object, nodes: list[str]) -> str:
    """What is missing until a policy is enforced everywhere; empty: nothing. Raises CommandError if refused."""
    generation = policy["metadata"].get("generation", 0)
    told = (policy.get("status") or {}).get("nodes") or {}
    missing = []
    for node in nodes:
        entry = told.get(node) or {}
        if entry.get("generation", 0) < generation:
            missing.append(node)
        elif not entry.get("enforced"):
            if message := entry.get("message"):
                raise CommandError(f"{policy['metadata']['name']}: node {node} refuses it: {message}")
            missing.append(node)
    return (
        f"it is not enforced on {', '.join(missing)}; is the agent there ready (`ciliate status`)?" if missing else ""
    )


def _pod_lacks(pod: Object) -> str:
    """What is missing until a pod is Ready; empty: nothing. Raises CommandError if it has failed."""
    status = pod.get("status") or {}
    ready: Object = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    why = ready.get("message") or ready.get("reason") or f"phase {status.get('phase', 'unknown')}"
    if status.get("phase") in ("Failed", "Succeeded"):
        raise CommandError(f"pod {pod['metadata']['name']} has ended: {why}")
    node = (pod.get("spec") or {}).get("nodeName")
    return f"it is not Ready: {why}" + ("" if node else "; it is on no node yet")
