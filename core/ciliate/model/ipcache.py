"""The ipcache: which identity an address has.

Each plugin that knows addresses writes a claims table of its own (`ipcache_claims_<plugin>`). policy merges them,
with the local endpoints, into the table `ipcache` and the map `ipcache`. For one prefix the first of these that has it
decides: local endpoints, then the claims tables in the order of CLAIMANTS. Prefixes are matched by longest prefix.
"""

from __future__ import annotations

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec
from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec

CLAIMANTS = ("cni", "routing", "kubernetes", "ipam", "policy")
"""Plugins that may claim addresses, in order of precedence. A stranger's table comes after them, by name."""


class IpcacheClaim(Row, frozen=True):
    """A plugin's word that a prefix has an identity. Key: prefix."""

    prefix: str  # 10.0.1.7/32, fd00::/64
    identity: int
    node: str = ""  # underlay address of the node that has it, if it is remote
    unresolved: bool = False  # a pod range: what is in it and not known exactly is dropped, never `world`


def claims_table(plugin: str) -> TableSpec[IpcacheClaim]:
    """The spec of the claims table of one plugin."""
    return TableSpec(
        f"ipcache_claims_{plugin}",
        IpcacheClaim,
        key=("prefix",),
        durability=Durability.SECOND,
        doc=f"Addresses that {plugin} knows.",
    )


class IpcacheEntry(Row, frozen=True):
    """The merged result. Key: prefix."""

    prefix: str
    identity: int
    node: str = ""
    unresolved: bool = False
    claimant: str = ""  # `endpoints`, or the plugin whose claim decided


IPCACHE = TableSpec("ipcache", IpcacheEntry, key=("prefix",), durability=Durability.SECOND, doc="Address to identity.")

IPCACHE_KEY = np.dtype([("prefixlen", "<u4"), ("address", "u1", 16)])
"""prefixlen counts bits of the 16 bytes: an IPv4 /24 is 120."""
IPCACHE_ENTRY = np.dtype([("identity", "<u4"), ("flags", "<u4"), ("tunnel", "u1", 16)])
IPCACHE_UNRESOLVED = 1 << 0
"""IPCACHE_ENTRY.flags: a pod range; an address that matches nothing longer is dropped (reason UNRESOLVED_ADDRESS)."""
IPCACHE_HOST = 1 << 1
"""IPCACHE_ENTRY.flags: an address of this node itself: delivered to the host's stack."""

IPCACHE_MAP = MapSpec(
    "ipcache",
    MapKind.LPM_TRIE,
    IPCACHE_KEY,
    IPCACHE_ENTRY,
    512_000,
    "Prefix to identity and node.",
    MapFlag.NO_PREALLOC,
)
