"""This node's report: what it has realised of policy, as one Lease (see `ciliate.model.policy_report`)."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import suppress

from ciliate.context import Context
from ciliate.leadership import LEASE
from ciliate.model.policy_report import PREFIX, PolicyDigest, read_report, report_of
from ciliate.store import NotFoundError, StoreError

from ciliate_policy.rules import Policy, PolicyKey

PAUSE = 1.0
"""Seconds between two reports, if changes go on for long; the first BURST after a silence are made at once."""
BURST = 20
GATHER = 0.01
"""Seconds in which changes that come together make one report."""
LOOK = 60.0
"""Seconds after which the report is looked at, in case somebody has deleted or changed it."""


class Report:
    """Digests of what is realised, and their way into the store."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._digests: defaultdict[str, PolicyDigest] = defaultdict(PolicyDigest)
        self._told: dict[str, str] | None = None
        self._wake = asyncio.Event()

    def note(self, key: PolicyKey, policy: Policy | None) -> None:
        """A policy is realised as it is, or gone."""
        if policy is None:
            self._digests[key.kind].remove(key)
        else:
            self._digests[key.kind].put(key, policy.uid, policy.generation)

    def publish(self) -> None:
        """All that was noted is in the kernel: tell."""
        told = {kind: str(digest) for kind, digest in self._digests.items()}
        if told != self._told:
            self._told = told
            self._wake.set()

    async def run(self) -> None:
        """Keep the Lease, for ever. An outage of the store is waited out."""
        await self._wake.wait()
        allowance, at = float(BURST), time.monotonic()
        while True:
            now = time.monotonic()
            allowance, at = min(BURST, allowance + (now - at) / PAUSE) - 1, now
            self._wake.clear()
            told = self._told or {}
            try:
                await self._write(told)
            except StoreError as error:
                self._context.log.warning("report of this node not written", reason=str(error))
                self._wake.set()
                allowance = 0
            await asyncio.sleep(GATHER if allowance >= 1 else PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()

    async def _write(self, told: dict[str, str]) -> None:
        """Make the Lease say it, if it does not. Raises StoreError."""
        node, namespace = self._context.node.name, self._context.node.namespace
        with suppress(NotFoundError):
            current = await self._context.store.get(LEASE, PREFIX + node, namespace)
            if read_report(current) == told:
                return
        await self._context.store.apply(report_of(node, namespace, told), "policy")
