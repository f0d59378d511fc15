"""The Pod objects of this node and all Namespace objects, as the store has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ciliate.model.kinds import NAMESPACE, POD
from ciliate.store import Object, ObjectKey, Store, follow, object_key

Changed = Callable[[ObjectKey], None]
_POD = POD.only(
    "metadata.labels",
    "metadata.annotations",
    "spec.serviceAccountName",
    "spec.serviceAccount",
    "spec.containers[].ports",
    "spec.initContainers[].ports",
    "status.phase",  # recovery finds a pod by its addresses
    "status.podIPs",
)
_NAMESPACE = NAMESPACE.only("metadata.labels")


class Pods:
    """Follows both kinds. `on_pod` is called with a pod's key, `on_namespace` with a namespace's, after each change."""

    def __init__(self, store: Store, node: str, on_pod: Changed, on_namespace: Changed) -> None:
        self._store = store
        self._node = node
        self._on_pod = on_pod
        self._on_namespace = on_namespace
        self._waiting: set[asyncio.Event] = set()
        self.pods: dict[ObjectKey, Object] = {}
        self.namespaces: dict[str, Object] = {}
        self.complete: set[str] = set()  # kinds whose list has come whole

    async def follow_pods(self) -> None:
        """Keep `pods`, for ever."""
        left = set(self.pods)  # of an earlier life of the task: gone, if they are not in the whole list
        async for changes in follow(self._store, _POD, fields={"spec.nodeName": self._node}):
            for pod in changes.upserts:
                self.pods[object_key(pod)] = pod
                left.discard(object_key(pod))
            for key in [*changes.deletes, *(left if changes.complete else ())]:
                self.pods.pop(key, None)
            if changes.complete:
                left.clear()
                self.complete.add(POD.kind)
            self._wake()
            for pod in changes.upserts:
                self._on_pod(object_key(pod))

    async def follow_namespaces(self) -> None:
        """Keep `namespaces`, for ever."""
        left = set(self.namespaces)
        async for changes in follow(self._store, _NAMESPACE):
            for namespace in changes.upserts:
                self.namespaces[object_key(namespace).name] = namespace
                left.discard(object_key(namespace).name)
            for name in [*(key.name for key in changes.deletes), *(left if changes.complete else ())]:
                self.namespaces.pop(name, None)
            if changes.complete:
                left.clear()
                self.complete.add(NAMESPACE.kind)
            self._wake()
            for namespace in changes.upserts:
                self._on_namespace(object_key(namespace))

    async def find(self, key: ObjectKey, uid: str, timeout: float) -> Object | None:
        """A pod, with the given uid if there is one; None if it doesn't appear in time."""
        wake = asyncio.Event()
        self._waiting.add(wake)
        try:
            async with asyncio.timeout(timeout):
                while (pod := self.known(key, uid)) is None or NAMESPACE.kind not in self.complete:
                    await wake.wait()
                    wake.clear()
                return pod
        except TimeoutError:
            return self.known(key, uid)
        finally:
            self._waiting.discard(wake)

    async def synced(self) -> None:
        """Wait until all of both kinds that there are have come."""
        wake = asyncio.Event()
        self._waiting.add(wake)
        try:
            while not self.complete >= {POD.kind, NAMESPACE.kind}:
                await wake.wait()
                wake.clear()
        finally:
            self._waiting.discard(wake)

    def known(self, key: ObjectKey, uid: str) -> Object | None:
        """A pod that is known now, unless it is an earlier one of the same name."""
        pod = self.pods.get(key)
        return pod if pod is not None and has_uid(pod, uid) else None

    def _wake(self) -> None:
        for wake in self._waiting:
            wake.set()


def has_uid(pod: Object, uid: str) -> bool:
    """Whether a runtime that says `uid` (empty: nothing) means this pod. A static pod's is the hash of its manifest."""
    meta = pod["metadata"]
    hashed = (meta.get("annotations") or {}).get("kubernetes.io/config.hash")
    return not uid or uid in (meta.get("uid", uid), hashed)
