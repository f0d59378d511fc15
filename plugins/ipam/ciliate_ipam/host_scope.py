"""The driver `host-scope`: each node's ranges are in its own configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ciliate.context import Context
from ciliate.model.ipam import PodRange

from ciliate_ipam.config import SMALLEST_HOST_BITS, IpamSection, networks

POOL = "host-scope"


class HostScope:
    """See `ciliate.model.ipam.IpamDriver`. The configuration's author sees to it that nodes' ranges don't overlap."""

    operator_assigns = False

    def __init__(self, context: Context) -> None:
        """Raises ValueError on a setting that can't be."""
        config: IpamSection = context.config
        self._cidrs: list[str] = []
        if context.node.role == "operator":
            return
        for family in config.families():
            key = f"host_scope_ipv{family}_cidr"
            cidrs = networks(getattr(config, key), key, family)
            if not cidrs:
                raise ValueError(f"ipam.{key}: is empty; give this node's range, or set ipam.ipv{family} to false")
            if small := next((c for c in cidrs if c.prefixlen > c.max_prefixlen - SMALLEST_HOST_BITS), None):
                raise ValueError(f"ipam.{key}: {small} is too small; a range has at least four addresses")
            self._cidrs += [str(cidr) for cidr in cidrs]

    async def ranges(self) -> AsyncIterator[list[PodRange]]:
        """See `IpamDriver.ranges`."""
        yield [PodRange(cidr=cidr, pool=POOL) for cidr in self._cidrs]
        await asyncio.Event().wait()  # the configuration does not change while the process lives

    async def operate(self) -> None:
        """See `IpamDriver.operate`: nothing."""

    def status(self) -> dict[str, str]:
        """See `IpamDriver.status`."""
        return {"ranges": " ".join(self._cidrs)}
