"""The agent's word that this node's network works: an annotation of its CiliumNode.

It names the machine's start for which it holds: an agent that is restarted takes nothing back, since the data path goes
on, and a machine that is started anew says it again. It is written once a start.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path

from ciliate.context import Context
from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import ConflictError, NotFoundError, Object, follow

READY = "ciliate.io/ready-since-boot"
LOOK = 0.5
"""Seconds between two looks at whether this process is ready."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_READ = CILIUM_NODE.only("metadata.annotations", "spec.bootid")


class Readiness:
    """Keeps the annotation, from the first moment on at which all plugins of this process are ready."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """For ever; whoever deletes the object, or takes the annotation away, gets it back."""
        while self._context.unready():
            await asyncio.sleep(LOOK)
        name, boot = self._context.node.name, boot_id()
        async with aclosing(follow(self._context.store, _READ, fields={"metadata.name": name})) as changes:  # type: ignore[type-var]
            async for change in changes:
                for node in change.upserts:
                    if annotation(node) != boot:
                        await self._say(name, boot)

    async def _say(self, name: str, boot: str) -> None:
        with suppress(NotFoundError, ConflictError):
            changes: Object = {"metadata": {"name": name, "annotations": {READY: boot}}}
            await self._context.store.patch(CILIUM_NODE, changes)
            self._context.log.info("this node's network works", node=name)


def boot_id() -> str:
    """This start of this machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def annotation(node: Object) -> str:
    """The start for which a CiliumNode says that its network works; empty: for none."""
    found = node["metadata"].get("annotations")
    return str(found.get(READY, "")) if isinstance(found, dict) else ""


def is_ready(node: Object) -> bool:
    """Whether a node's network works, by its CiliumNode, since the machine's last start."""
    said = annotation(node)
    spec = node.get("spec")
    boot = spec.get("bootid") if isinstance(spec, dict) else None
    return bool(said) and said == (boot or "unknown")
