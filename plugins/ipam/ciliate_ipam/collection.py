"""CiliumNodes whose node is gone: deleted by the operator, so that their ranges are free again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_NODE, NODE
from ciliate.store import ConflictError, NotFoundError, Object, UnavailableError

from ciliate_ipam.config import IpamSection


class NodeCollection:
    """Looks once an interval. One that was never a Node's, as of a machine without Kubernetes, is left alone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config: IpamSection = context.config
        self._gone: set[str] = set()  # uids of those whose Node was not there at the last look

    async def run(self) -> None:
        """Collect, for ever; never if the interval is 0."""
        while self._config.nodes_gc_interval > 0:
            try:
                await self.collect()
            except UnavailableError as error:
                self._context.log.warning("CiliumNodes not looked through", reason=str(error))
            await asyncio.sleep(self._config.nodes_gc_interval)

    async def collect(self) -> None:
        """Delete what two looks in a row have found without its Node. Raises StoreError."""
        listed = (await self._context.store.list(CILIUM_NODE.only("metadata.ownerReferences"))).items
        nodes = {one["metadata"]["name"] for one in (await self._context.store.list(NODE.only("metadata.name"))).items}
        gone = [one for one in listed if is_owned(one) and one["metadata"]["name"] not in nodes]
        for one in gone:
            name, uid = one["metadata"]["name"], one["metadata"]["uid"]
            if uid in self._gone:
                with suppress(NotFoundError, ConflictError):
                    await self._context.store.delete(CILIUM_NODE, name, uid=uid)
                    self._context.log.info("CiliumNode deleted: its node is gone", node=name)
        self._gone = {one["metadata"]["uid"] for one in gone}


def is_owned(node: Object) -> bool:
    """Whether a CiliumNode is a Node's."""
    owners = node["metadata"].get("ownerReferences")
    listed = owners if isinstance(owners, list) else []
    return any(isinstance(owner, dict) and owner.get("kind") == NODE.kind for owner in listed)
