"""`--wait`: until a policy is enforced on every node, or a pod is Ready."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from ciliate.cli.dispatch import CommandError
from ciliate.leadership import LEASE
from ciliate.model.kinds import (
    CILIUM_CLUSTERWIDE_NETWORK_POLICY,
    CILIUM_NETWORK_POLICY,
    CILIUM_NODE,
    NETWORK_POLICY,
    POD,
)
from ciliate.model.policy_report import EMPTY, ENFORCED, PolicyHistory, condition_of, node_of, read_report
from ciliate.store import Kind, Object, ObjectKey, Store, follow, object_key

from ciliate_objects.kinds import called

POLICIES = (CILIUM_NETWORK_POLICY, CILIUM_CLUSTERWIDE_NETWORK_POLICY, NETWORK_POLICY)


async def wait_for(store: Store, kind: Kind, obj: Object, timeout: float, namespace: str) -> None:
    """Wait until an object does what it says; kinds that nothing is known of are done at once. Raises CommandError.

    namespace: where the cluster's nodes report.
    """
    if kind not in (*POLICIES, POD):
        return
    waiting = Waiting(store, kind, obj)
    try:
        async with asyncio.timeout(timeout):
            await (waiting.for_object() if kind.has_status else waiting.for_reports(namespace))
    except TimeoutError:
        name = called(kind, obj["metadata"]["name"])
        raise CommandError(f"{name}: after {timeout:g} s {waiting.lacking}") from None


class Waiting:
    """For one object. `lacking` says in the meantime what is missing."""

    def __init__(self, store: Store, kind: Kind, obj: Object) -> None:
        self.lacking = "nothing is known of it"
        self._store = store
        self._kind = kind
        self._obj = obj
        self._deleted = CommandError(f"{called(kind, obj['metadata']['name'])} was deleted meanwhile")

    async def for_object(self) -> None:
        """Until the object's own status says that it is done."""
        name, namespace = self._obj["metadata"]["name"], self._obj["metadata"].get("namespace")
        followed = follow(self._store, self._kind, namespace, {"metadata.name": name})
        async with aclosing(followed) as changes:  # type: ignore[type-var]
            async for change in changes:
                if change.deletes or (not change.upserts and change.complete):
                    raise self._deleted
                current = change.upserts[-1]
                self.lacking = _pod_lacks(current) if self._kind is POD else policy_lacks(current)
                if not self.lacking:
                    return

    async def for_reports(self, namespace: str) -> None:
        """Until every node reports a state of this kind that has the object: Kubernetes' policies have no status."""
        history, reports = PolicyHistory(), {}
        key = object_key(self._obj)
        nodes = {node["metadata"]["name"] for node in (await self._store.list(CILIUM_NODE.only("metadata.name"))).items}
        changed = asyncio.Event()

        async def follow_policies() -> None:
            async with aclosing(follow(self._store, self._kind)) as changes:  # type: ignore[type-var]
                async for change in changes:
                    for gone in change.deletes:
                        history.remove(gone)
                    for obj in change.upserts:
                        history.put(object_key(obj), obj["metadata"].get("uid", ""), obj["metadata"]["generation"])
                    if change.complete and key not in history.since:
                        raise self._deleted
                    changed.set()

        async def follow_reports() -> None:
            async with aclosing(follow(self._store, LEASE.only("metadata.annotations"), namespace)) as changes:  # type: ignore[type-var]
                async for change in changes:
                    for lease in change.upserts:
                        if node := node_of(ObjectKey(namespace, lease["metadata"]["name"])):
                            reports[node] = read_report(lease).get(self._kind.kind, EMPTY)
                    changed.set()

        tasks = [asyncio.create_task(follow_policies()), asyncio.create_task(follow_reports())]
        try:
            while True:
                looked = asyncio.create_task(changed.wait())
                await asyncio.wait({*tasks, looked}, return_when=asyncio.FIRST_COMPLETED)
                looked.cancel()
                changed.clear()
                for task in (task for task in tasks if task.done()):
                    task.result()
                since = history.since.get(key)
                states = {node: history.state_of(reports[node]) for node in nodes if node in reports}
                missing = sorted(n for n in nodes if since is None or (states.get(n) or -1) < since)
                self.lacking = _not_on(missing)
                if not missing and since is not None:
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def policy_lacks(policy: Object) -> str:
    """What is missing until a policy is enforced everywhere; empty: nothing. Raises CommandError if it is invalid."""
    said = condition_of(policy, ENFORCED)
    if not said:
        return "nothing is said of it yet; does the operator run (`ciliate status`)?"
    if said.get("reason") == "Invalid":
        raise CommandError(f"{policy['metadata']['name']}: {said.get('message')}")
    return "" if said.get("status") == "True" else f"{said.get('message')}"


def _not_on(nodes: list[str]) -> str:
    return f"it is not enforced on {', '.join(nodes)}; is the agent there ready (`ciliate status`)?" if nodes else ""


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
