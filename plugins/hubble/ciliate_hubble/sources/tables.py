"""The tables that flows are joined with, and what agent events come of their changes."""

from __future__ import annotations

import asyncio

from ciliate.context import Context
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINTS
from ciliate.model.identity import IDENTITIES
from ciliate.model.ipcache import IPCACHE, IpcacheEntry
from ciliate.model.policy import POLICY_REVISIONS, RULE_SETS

from ciliate_hubble.names import Names
from ciliate_hubble.rules import Rules
from ciliate_hubble.sources.following import Following
from ciliate_hubble.sources.notices import Notices

LOOK = 0.5
"""Seconds between two looks at whether the agent has been started anew."""


def follow_tables(context: Context, names: Names, rules: Rules, notices: Notices) -> None:
    """Spawn what follows each of them."""
    tables = context.tables

    def put_prefix(row: IpcacheEntry) -> None:
        names.prefixes.put(row.prefix, row.identity)

    followings: list[Following] = [  # type: ignore[type-arg]  # each of another row
        Following(tables, ENDPOINTS, names.put_endpoint, names.delete_endpoint, notices.endpoint),
        Following(tables, ENDPOINT_POLICIES, names.put_policy, lambda _: None, notices.endpoint_policy),
        Following(tables, IDENTITIES, names.put_identity, names.delete_identity),
        Following(tables, IPCACHE, put_prefix, names.prefixes.delete, notices.prefix, after=names.prefixes_changed),
        Following(tables, RULE_SETS, rules.put, rules.delete),
        Following(tables, POLICY_REVISIONS, lambda _: None, lambda _: None, notices.policy),
    ]
    for following in followings:
        context.spawn(f"table {following.spec.name}", following.run)

    async def watch_agent() -> None:
        """An agent's new life begins a new epoch of its tables."""
        endpoints = tables.reader(ENDPOINTS)
        epoch = endpoints.epoch
        while True:
            if endpoints.epoch != epoch and not endpoints.stale:
                epoch = endpoints.epoch
                notices.agent_started()
            await asyncio.sleep(LOOK)

    context.spawn("agent", watch_agent)
