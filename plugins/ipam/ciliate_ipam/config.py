"""The section `ipam`."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

from ciliate.model.base import IPNetwork
from ciliate.plugin import Section

SMALLEST_HOST_BITS = 2
"""A range has at least four addresses: its first and last are not used, and one is the router's."""


class IpamSection(Section):
    """Where pod addresses come from. CIDRs are a list, or one string with spaces or commas."""

    mode: str = "cluster-pool"
    """The driver: cluster-pool, host-scope, or one that another package brings."""
    ipv4: bool = True
    ipv6: bool = True
    cluster_pool_ipv4_cidr: str | list[str] = "10.0.0.0/8"
    cluster_pool_ipv4_mask_size: int = 24
    cluster_pool_ipv6_cidr: str | list[str] = "fd00::/104"
    cluster_pool_ipv6_mask_size: int = 120
    cluster_pool_assigned_by: Literal["agent", "operator"] = "agent"
    """Who hands out ranges: each agent for itself, or the operator. Ranges never overlap, even with both at work."""
    host_scope_ipv4_cidr: str | list[str] = ""
    host_scope_ipv6_cidr: str | list[str] = ""
    reuse_delay: float = 60.0
    """Seconds for which a released address is not given out again while there is another."""
    allow_overlap: str | list[str] = ""
    """Prefixes of this machine that pod ranges may overlap with, because it is known to do no harm."""
    nodes_gc_interval: float = 300.0
    """Seconds between two looks for CiliumNodes whose node is gone; 0: they are left."""
    options: dict[str, Any] = {}
    """For drivers of other packages."""

    def families(self) -> list[int]:
        """The address families that pods get: 4, 6."""
        return [family for family, wanted in ((4, self.ipv4), (6, self.ipv6)) if wanted]


def networks(value: str | list[str], key: str, family: int | None = None) -> list[IPNetwork]:
    """The CIDRs of a setting. Raises ValueError that names the key, the value and what is wrong."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    found: list[IPNetwork] = []
    for part in parts:
        try:
            network = ipaddress.ip_network(part)
        except ValueError as error:
            raise ValueError(f"ipam.{key}: {error}") from None
        if family is not None and network.version != family:
            raise ValueError(f"ipam.{key}: {part} is not IPv{family}")
        if other := next(
            (known for known in found if known.version == network.version and known.overlaps(network)), None
        ):
            raise ValueError(f"ipam.{key}: {part} overlaps with {other}")
        found.append(network)
    return found


def cluster_pools(config: IpamSection) -> dict[int, tuple[list[IPNetwork], int]]:
    """(pools, mask size) of each family in use. Raises ValueError."""
    pools: dict[int, tuple[list[IPNetwork], int]] = {}
    for family in config.families():
        key = f"cluster_pool_ipv{family}_cidr"
        cidrs = networks(getattr(config, key), key, family)
        size = getattr(config, f"cluster_pool_ipv{family}_mask_size")
        if not cidrs:
            raise ValueError(f"ipam.{key}: is empty; give a range, or set ipam.ipv{family} to false")
        longest = cidrs[0].max_prefixlen - SMALLEST_HOST_BITS
        if bad := next((c for c in cidrs if not c.prefixlen <= size <= longest), None):
            raise ValueError(
                f"ipam.cluster_pool_ipv{family}_mask_size: {size} must be"
                f" from {bad.prefixlen} (of pool {bad}) to {longest}"
            )
        pools[family] = (cidrs, size)
    return pools
