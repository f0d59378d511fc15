"""CiliumEndpoints whose pod is gone, has ended or has moved: deleted by the operator."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_ENDPOINT, POD
from ciliate.store import ConflictError, NotFoundError, Object, UnavailableError, object_key

from ciliate_cni.config import CniConfig
from ciliate_cni.endpoint_status import pod_uid_of

ENDED = ("Succeeded", "Failed")
BETWEEN_DELETIONS = 0.02


class EndpointCollection:
    """Looks once an interval."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config: CniConfig = context.config

    async def run(self) -> None:
        """Collect, for ever; never if the interval is 0."""
        while self._config.endpoint_gc_interval > 0:
            try:
                await self.collect()
            except UnavailableError as error:
                self._context.log.warning("CiliumEndpoints not looked through", reason=str(error))
            await asyncio.sleep(self._config.endpoint_gc_interval)

    async def collect(self) -> None:
        """One look. Pods are listed after the endpoints, whose pods were there before them. Raises StoreError."""
        store = self._context.store
        endpoints = (await store.list(CILIUM_ENDPOINT.only("metadata.ownerReferences"))).items
        pods = {object_key(pod): pod for pod in (await store.list(POD.only("status.phase"))).items}
        for endpoint in endpoints:
            key = object_key(endpoint)
            if reason := stale(endpoint, pods.get(key)):
                with suppress(NotFoundError, ConflictError):  # somebody else has deleted it, or made it anew
                    await store.delete(CILIUM_ENDPOINT, key.name, key.namespace, uid=endpoint["metadata"]["uid"])
                    self._context.log.info("CiliumEndpoint deleted", endpoint="/".join(key), reason=reason)
                await asyncio.sleep(BETWEEN_DELETIONS)


def stale(endpoint: Object, pod: Object | None) -> str:
    """Why nobody keeps a CiliumEndpoint any more; empty: somebody does."""
    if pod is None:
        return "its pod is gone"
    if pod_uid_of(endpoint) not in ("", pod["metadata"]["uid"]):
        return "it is an earlier pod's of this name"
    phase = (pod.get("status") or {}).get("phase")
    return f"its pod has ended ({phase})" if phase in ENDED else ""
