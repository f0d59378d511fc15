"""Where the node's policy learns from: the store's objects and the tables of other plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from ciliate.context import Context
from ciliate.model.endpoint import ENDPOINTS
from ciliate.model.ipcache import CLAIMANTS, IpcacheClaim, claims_table
from ciliate.model.kinds import CILIUM_CIDR_GROUP, CILIUM_IDENTITY
from ciliate.store import Kind, Object, ObjectKey, StoreError, follow

from ciliate_policy.agent import PolicyAgent
from ciliate_policy.allocator import identity_of_object
from ciliate_policy.ipcache import ENDPOINTS as LOCAL
from ciliate_policy.ipcache import POLICY, address_of
from ciliate_policy.objects import POLICY_KINDS, read_cidr_group, read_policy
from ciliate_policy.rules import PolicyKey
from ciliate_policy.slices import sliced
from ciliate_policy.status import write_status

BATCH = 50
"""Objects read between two looks at what else is to be done: a few milliseconds."""
LARGE = 200
"""Rule elements from which on an object is read in a thread: 5 ms."""
UPKEEP_SECONDS = 300.0
Put = Callable[[Object], Coroutine[Any, Any, None]]


def start(context: Context, agent: PolicyAgent) -> None:
    """Spawn everything that feeds the agent, and the agent's own work."""
    for kind in POLICY_KINDS:
        _spawn(context, agent, kind, lambda obj: _policy(agent, obj), _policy_gone(agent, kind))
    _spawn(
        context, agent, CILIUM_CIDR_GROUP, lambda obj: _group(context, agent, obj), lambda k: agent.remove_group(k.name)
    )
    _spawn(context, agent, CILIUM_IDENTITY, lambda obj: _identity(agent, obj), lambda key: _identity_gone(agent, key))
    context.spawn("endpoints", lambda: follow_endpoints(context, agent))
    for claimant in CLAIMANTS:
        if claimant != POLICY:
            context.spawn(f"claims-{claimant}", _claims_factory(context, agent, claimant))
    context.spawn("work", agent.work)
    context.spawn("status", lambda: write_statuses(context, agent))
    context.spawn("upkeep", lambda: upkeep(agent))


def _spawn(context: Context, agent: PolicyAgent, kind: Kind, put: Put, remove: Callable[[ObjectKey], None]) -> None:
    known: set[ObjectKey] = set()
    context.spawn(f"objects-{kind.plural}", lambda: follow_objects(context, agent, kind, known, put, remove))


async def follow_objects(
    context: Context,
    agent: PolicyAgent,
    kind: Kind,
    known: set[ObjectKey],
    put: Put,
    remove: Callable[[ObjectKey], None],
) -> None:
    """Tell the agent of all objects of a kind, then of every change. `known` outlives a restart of the task."""
    first = True
    async with aclosing(follow(context.store, kind)) as batches:  # type: ignore[type-var]
        async for changes in batches:
            present = {_object_key(obj) for obj in changes.upserts}
            gone = [key for key in known if first and key not in present] + list(changes.deletes)
            for key in gone:
                known.discard(key)
                remove(key)
            for count, obj in enumerate(changes.upserts, 1):
                known.add(_object_key(obj))
                await put(obj)
                if count % BATCH == 0:
                    await asyncio.sleep(0)
            if changes.complete and first:
                first = False
                agent.complete(kind.kind)


def _object_key(obj: Object) -> ObjectKey:
    return ObjectKey(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


async def _policy(agent: PolicyAgent, obj: Object) -> None:
    if _is_large(obj):
        agent.set_policy(await asyncio.to_thread(read_policy, obj, agent.cluster))
    else:
        agent.set_policy(read_policy(obj, agent.cluster))


def _is_large(obj: Object) -> bool:
    """Whether reading it would hold the loop for longer than a slice."""
    specs = obj.get("specs")
    lists = [obj.get("spec"), *(specs if isinstance(specs, list) else ())]
    sizes = (len(part) for spec in lists if isinstance(spec, dict) for part in spec.values() if isinstance(part, list))
    return sum(sizes) > LARGE


def _policy_gone(agent: PolicyAgent, kind: Kind) -> Callable[[ObjectKey], None]:
    return lambda key: agent.remove_policy(PolicyKey(kind.kind, key.namespace, key.name))


async def _group(context: Context, agent: PolicyAgent, obj: Object) -> None:
    group, findings = read_cidr_group(obj)
    for finding in findings:
        context.log.warning("CIDR group has a bad member", group=group.name, path=finding.path, reason=finding.message)
    agent.set_group(group)


async def _identity(agent: PolicyAgent, obj: Object) -> None:
    found = identity_of_object(obj)
    if found is not None:
        agent.set_identity(*found)


def _identity_gone(agent: PolicyAgent, key: ObjectKey) -> None:
    if key.name.isdecimal():
        agent.remove_identity(int(key.name))


async def follow_endpoints(context: Context, agent: PolicyAgent) -> None:
    """Tell the agent of this node's pods."""
    async with aclosing(context.tables.reader(ENDPOINTS).changes()) as batches:
        async for changes in batches:
            if changes.snapshot:
                present = {row.id for row in changes.upserts}
                for number in [n for n in agent.endpoints if n not in present]:
                    agent.remove_endpoint(number)
            for number in changes.deletes:
                agent.remove_endpoint(number)
            async for row in sliced(iter(changes.upserts)):
                if agent.endpoints.get(row.id) != row:
                    agent.set_endpoint(row)
            if changes.complete:
                agent.complete(LOCAL)


def _claims_factory(context: Context, agent: PolicyAgent, claimant: str) -> Callable[[], Any]:
    return lambda: follow_claims(context, agent, claimant)


async def follow_claims(context: Context, agent: PolicyAgent, claimant: str) -> None:
    """Tell the agent of one plugin's claims. A table that nobody has ever written has nothing to say."""
    reader = context.tables.reader(claims_table(claimant))
    async with aclosing(reader.changes()) as batches:
        async for changes in batches:
            if changes.snapshot:
                agent.ipcache.replace(claimant, _sound(context, claimant, changes.upserts))
            else:
                for claim in _sound(context, claimant, changes.upserts):
                    agent.ipcache.put(claimant, claim)
                for prefix in changes.deletes:
                    agent.ipcache.remove(claimant, prefix)
            agent.wait_for_claims(claimant, changes.complete or reader.epoch == 0)


def _sound(context: Context, claimant: str, claims: list[IpcacheClaim]) -> list[IpcacheClaim]:
    """Claims whose prefix is one; the others are named in the log."""
    sound = []
    for claim in claims:
        try:
            address_of(claim.prefix)
        except ValueError as error:
            context.log.error("claim of an address left out", claimant=claimant, prefix=claim.prefix, reason=str(error))
        else:
            sound.append(claim)
    return sound


async def write_statuses(context: Context, agent: PolicyAgent) -> None:
    """Write what is realised into the policies' status. An outage of the store is waited out."""
    kinds = {kind.kind: kind for kind in POLICY_KINDS}
    while True:
        await agent.status_wake.wait()
        agent.status_wake.clear()
        while agent.status_due:
            key, row = next(iter(agent.status_due.items()))
            try:
                await write_status(context.store, kinds[key.kind], row, context.node.name)
            except StoreError as error:
                context.log.warning("status of a policy not written", policy=str(key), reason=str(error))
                await asyncio.sleep(1.0)
                continue
            if agent.status_due.get(key) is row:
                del agent.status_due[key]


async def upkeep(agent: PolicyAgent) -> None:
    """Forget, now and then, what nothing has used for a while."""
    unused: set[int] = set()
    while True:
        await asyncio.sleep(UPKEEP_SECONDS)
        unused = agent.retire(unused)
