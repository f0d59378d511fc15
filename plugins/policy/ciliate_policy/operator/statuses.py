"""The status of every policy, written by the leading operator and by nobody else.

Written at once when a policy is enforced on all nodes or found invalid, after a moment when only some have it, and at
leisure when only the number of nodes has changed.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from ciliate.context import Context
from ciliate.leadership import LEASE
from ciliate.model.kinds import CILIUM_NODE
from ciliate.model.policy_report import ENFORCED, VALID, condition_of, node_of, read_report
from ciliate.review import Severity
from ciliate.store import ConflictError, Kind, NotFoundError, Object, ObjectKey, StoreError, follow

from ciliate_policy.objects import POLICY_KINDS, is_large, policy_key, read_policy
from ciliate_policy.operator.conditions import Condition, conditions_for, sentences, with_conditions
from ciliate_policy.operator.progress import Progress
from ciliate_policy.rules import Policy, PolicyKey
from ciliate_policy.slices import sliced

SETTLE = 0.3
"""Seconds from a change to a status that says of only some nodes that they have it."""
BETWEEN = 1.0
"""Seconds between two writes of one policy's status."""
LEISURE = 30.0
"""Seconds until a status is brought up to date in which nothing but a count is old."""
NEWCOMER = 60.0
"""Seconds for which a node that has never reported does not make a policy's status worse."""
BATCH = 20
"""Policies read between two looks at what else is to be done."""
KINDS = {kind.kind: kind for kind in POLICY_KINDS}


@dataclass
class _Known:
    """What the writer knows of one policy."""

    policy: Policy  # without its rules
    status: dict[str, Any]
    written: float = -BETWEEN
    old_since: float | None = None  # since when nothing but a count in its status is old
    due: float | None = None


@dataclass
class Statuses:
    """Follows policies, nodes and reports, and writes."""

    context: Context
    progress: Progress = field(default_factory=Progress)
    _known: dict[PolicyKey, _Known] = field(default_factory=dict)
    _due: list[tuple[float, PolicyKey]] = field(default_factory=list)
    _missing: set[str] = field(default_factory=set)
    _born: dict[str, float] = field(default_factory=dict)  # nodes: when they were first seen, by the loop's clock
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Everything, for ever; begins with nothing, as a new leader does."""
        self._missing = {kind.kind for kind in (*POLICY_KINDS, CILIUM_NODE, LEASE)}
        async with asyncio.TaskGroup() as tasks:
            for kind in POLICY_KINDS:
                tasks.create_task(self._follow_policies(kind))
            tasks.create_task(self._follow_nodes())
            tasks.create_task(self._follow_reports())
            tasks.create_task(self._write())

    # What is told

    async def _follow_policies(self, kind: Kind) -> None:
        async with aclosing(follow(self.context.store, kind)) as batches:  # type: ignore[type-var]
            async for changes in batches:
                for key in changes.deletes:
                    gone = PolicyKey(kind.kind, key.namespace, key.name)
                    self._known.pop(gone, None)
                    self.progress.remove_policy(gone)
                for count, obj in enumerate(changes.upserts, 1):
                    await self._put(kind, obj)
                    if count % BATCH == 0:
                        await asyncio.sleep(0)
                self._told(kind, changes.complete)

    async def _put(self, kind: Kind, obj: Object) -> None:
        key = policy_key(obj)
        meta = obj["metadata"]
        known = self._known.get(key)
        if known is None or (known.policy.uid, known.policy.generation) != (meta.get("uid"), meta.get("generation", 0)):
            policy = await asyncio.to_thread(read_policy, obj) if is_large(obj) else read_policy(obj)
            known = _Known(Policy(key, policy.uid, policy.generation, (), policy.findings), {})
            self._explain(kind, obj, policy)
            self.progress.set_policy(key, policy.uid, policy.generation)
            if kind.kind in self._missing and condition_of(obj, ENFORCED).get("status") == "True":
                self.progress.trust(key)
        found = obj.get("status")
        status = found if isinstance(found, dict) else {}
        changed = key not in self._known or self._known[key] is not known or status != known.status
        known.status = status
        self._known[key] = known
        if changed:
            self._plan(key, 0.0 if known.policy.invalid else SETTLE)

    def _explain(self, kind: Kind, obj: Object, policy: Policy) -> None:
        """Say in Events what keeps a policy from being enforced, unless its status says so already."""
        if condition_of(obj, VALID):
            return
        invalid = [one for one in policy.findings if one.severity is Severity.INVALID]
        unsupported = [one for one in policy.findings if one.severity is Severity.UNSUPPORTED]
        if invalid:
            self.context.recorder.warn(obj, "PolicyInvalid", f"not enforced: {sentences(invalid)}")
        elif unsupported:
            self.context.recorder.warn(obj, "PolicyNotEnforcedWhole", sentences(unsupported))

    async def _follow_nodes(self) -> None:
        async with aclosing(follow(self.context.store, CILIUM_NODE.only("metadata.name"))) as batches:  # type: ignore[type-var]
            async for changes in batches:
                fresh = [node for node in changes.upserts if self.progress.set_node(node["metadata"]["name"])]
                for node in fresh:  # those of the first list are no newcomers
                    old = CILIUM_NODE.kind in self._missing
                    self._born[node["metadata"]["name"]] = self._now() - NEWCOMER * old
                for key in changes.deletes:
                    self.progress.remove_node(key.name)
                    self._born.pop(key.name, None)
                if fresh or changes.deletes:
                    for policy in self._known:
                        self._plan(policy, SETTLE if changes.deletes else LEISURE)
                self._told(CILIUM_NODE, changes.complete)

    async def _follow_reports(self) -> None:
        namespace = self.context.node.namespace
        async with aclosing(follow(self.context.store, LEASE.only("metadata.annotations"), namespace)) as batches:  # type: ignore[type-var]
            async for changes in batches:
                for key in changes.deletes:
                    if name := node_of(key):
                        self.progress.set_report(name, None)
                for lease in changes.upserts:
                    if name := node_of(ObjectKey(namespace, lease["metadata"]["name"])):
                        self.progress.set_report(name, read_report(lease))
                self._told(LEASE, changes.complete)

    def _told(self, kind: Kind, complete: bool) -> None:
        if complete:
            self._missing.discard(kind.kind)
        self._wake.set()

    # What is written

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _plan(self, key: PolicyKey, delay: float) -> None:
        """Have a policy's status looked at after a while, or earlier if that was planned."""
        known = self._known.get(key)
        if known is None or not KINDS[key.kind].has_status:
            return
        due = max(self._now() + delay, known.written + BETWEEN)
        if known.due is None or due < known.due:
            known.due = due
            heapq.heappush(self._due, (due, key))
            self._wake.set()

    async def _write(self) -> None:
        while True:
            self._wake.clear()
            pause = None
            if not self._missing:
                async for key, everywhere in sliced(iter(list(self.progress.take()))):
                    self._plan(key, 0.0 if everywhere else SETTLE)
                while self._due and self._due[0][0] <= self._now():
                    await self._look(heapq.heappop(self._due))
                pause = self._due[0][0] - self._now() if self._due else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _look(self, planned: tuple[float, PolicyKey]) -> None:
        """Write a policy's status if it is to be written now."""
        due, key = planned
        known = self._known.get(key)
        if known is None or known.due != due:
            return
        known.due = None
        lacking = self.progress.lacking(key)
        nodes = len(list(self.progress.nodes))
        wanted = conditions_for(known.policy.generation, known.policy.findings, nodes - len(lacking), nodes, lacking)
        fresh = with_conditions(known.status, wanted)
        if fresh is None:
            known.old_since = None
            return
        delay = self._leisure(known, wanted, lacking)
        if delay > 0:
            self._plan(key, delay)
            return
        try:
            meta = {"name": key.name, "namespace": key.namespace, "uid": known.policy.uid}
            changes = {"metadata": {part: value for part, value in meta.items() if value}, "status": fresh}
            await self.context.store.patch(KINDS[key.kind], changes, status=True)
        except (NotFoundError, ConflictError):  # gone, or another of this name: the watch tells
            return
        except StoreError as error:
            self.context.log.warning("status of a policy not written", policy=str(key), reason=str(error))
            self._plan(key, BETWEEN)
        else:
            known.status, known.written, known.old_since = fresh, self._now(), None

    def _leisure(self, known: _Known, wanted: list[Condition], lacking: list[str]) -> float:
        """Seconds for which a status may stay as it is, though it is not quite what is wanted."""
        policy = {"metadata": {"generation": known.policy.generation}, "status": known.status}
        old = condition_of(policy, ENFORCED)
        if old.get("status") != "True":
            return 0.0
        if not lacking:
            if known.old_since is None:
                known.old_since = self._now()
            return max(0.0, known.old_since + LEISURE - self._now())
        newest = max(self._born.get(name, 0.0) for name in lacking)
        if any(self.progress.has_reported(name) for name in lacking):
            return 0.0
        return max(0.0, newest + NEWCOMER - self._now())
