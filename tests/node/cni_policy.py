"""A plugin in policy's place that allows everything: the cni plugin's tests need a policy, and none in particular.

It writes the same tables and maps as policy does, for the same kernel programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.maps.spec import MapSpec
from ciliate.model.base import pack_prefix
from ciliate.model.endpoint import (
    ENDPOINT_POLICIES,
    ENDPOINT_POLICY_MAP,
    ENDPOINT_STAMPS_MAP,
    ENDPOINTS,
    PEER_STAMPS_MAP,
    EndpointPolicy,
)
from ciliate.model.ipcache import (
    IPCACHE,
    IPCACHE_ENTRY,
    IPCACHE_HOST,
    IPCACHE_KEY,
    IPCACHE_MAP,
    IPCACHE_UNRESOLVED,
    claims_table,
)
from ciliate.model.policy import POLICY_ENTRY, POLICY_KEY, POLICY_MAP, POLICY_PREFIX, Direction
from ciliate.plugin import Plugin
from ciliate.tables.spec import TableSpec

IDENTITY = 1000
POLICY = 1
NOTHING = 2
"""A policy without entries."""


class AllowAll(Plugin):
    """Policy 1 for every endpoint, and it allows. One-way: endpoints with even ids may only answer."""

    name = "allow-all"
    needs = ("cni",)

    def __init__(self, one_way: bool = False) -> None:
        self._one_way = one_way

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        return (ENDPOINT_POLICIES, IPCACHE)

    @hookimpl
    def ciliate_maps(self) -> Iterable[MapSpec]:
        return (POLICY_MAP, ENDPOINT_POLICY_MAP, ENDPOINT_STAMPS_MAP, PEER_STAMPS_MAP, IPCACHE_MAP)

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        self._context = context
        policy = context.maps.open("policy", writable=True)
        for direction in Direction:
            key, value = np.zeros((), POLICY_KEY), np.zeros((), POLICY_ENTRY)
            key["prefixlen"], key["policy"], key["direction"] = POLICY_PREFIX, POLICY, direction
            policy.update(key, value)
        self._slots = context.maps.open("endpoint_policy", writable=True).mmap(writable=True)
        self._rows = context.tables.writer(ENDPOINT_POLICIES)
        self._addresses = context.tables.writer(IPCACHE)
        context.spawn("endpoints", self._follow_endpoints)
        context.spawn("addresses", self._follow_claims)

    async def _follow_endpoints(self) -> None:
        async for changes in self._context.tables.reader(ENDPOINTS).changes():
            for number in changes.deletes:
                self._slots[number] = (0, 0, 0, 0)
                self._rows.delete(number)
            for row in changes.upserts:
                egress = NOTHING if self._one_way and row.id % 2 == 0 else POLICY
                self._slots[row.id] = (IDENTITY, POLICY, egress, 0)
                self._rows.put(
                    EndpointPolicy(
                        id=row.id,
                        generation=row.generation,
                        identity=IDENTITY,
                        ingress_policy=POLICY,
                        egress_policy=POLICY,
                        revision=1,
                    )
                )
            if changes.complete:
                self._rows.complete()

    async def _follow_claims(self) -> None:
        ipcache = self._context.maps.open("ipcache", writable=True)
        async for changes in self._context.tables.reader(claims_table("cni")).changes():
            for claim in changes.upserts:
                key, value = np.zeros((), IPCACHE_KEY), np.zeros((), IPCACHE_ENTRY)
                key["prefixlen"], packed = pack_prefix(claim.prefix)
                key["address"] = np.frombuffer(packed, np.uint8)
                value["identity"] = claim.identity
                value["flags"] = IPCACHE_UNRESOLVED if claim.unresolved else IPCACHE_HOST
                ipcache.update(key, value)
            if changes.complete:
                self._addresses.complete()
