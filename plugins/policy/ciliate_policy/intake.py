"""Where the node's policy learns from: the store's objects and the tables of other plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

from ciliate.context import Context
from ciliate.model.api_server import API_SERVERS
from ciliate.model.endpoint import ENDPOINTS
from ciliate.model.ipcache import CLAIMANTS, IpcacheClaim, claims_table
from ciliate.model.kinds import CILIUM_CIDR_GROUP, CILIUM_IDENTITY
from ciliate.store import Kind, Object, ObjectKey, follow, object_key

from ciliate_policy.agent import PolicyAgent
from ciliate_policy.allocator import identity_of_object, is_unused
from ciliate_policy.ipcache import ENDPOINTS as LOCAL
from ciliate_policy.ipcache import POLICY, address_of
from ciliate_policy.objects import POLICY_KINDS, is_large, read_cidr_group, read_policy
from ciliate_policy.rules import PolicyKey
from ciliate_policy.slices import sliced

IDENTITY = CILIUM_IDENTITY.only("security-labels", "metadata.annotations")
UPKEEP_SECONDS = 300.0
Put = Callable[[Object], Coroutine[Any, Any, None]]


def start(context: Context, agent: PolicyAgent) -> None:
    """Spawn everything that feeds the agent, and the agent's own work."""
    for kind in POLICY_KINDS:
        _spawn(context, agent, kind, lambda obj: _policy(agent, obj), _policy_gone(agent, kind))
    _spawn(
        context, agent, CILIUM_CIDR_GROUP, lambda obj: _group(context, agent, obj), lambda k: agent.remove_group(k.name)
    )
    _spawn(context, agent, IDENTITY, lambda obj: _identity(agent, obj), lambda key: _identity_gone(agent, key))
    context.spawn("endpoints", lambda: follow_endpoints(context, agent))
    for claimant in CLAIMANTS:
        if claimant != POLICY:
            context.spawn(f"claims-{claimant}", _claims_factory(context, agent, claimant))
    context.spawn("api-servers", lambda: follow_api_servers(context, agent))
    context.spawn("work", agent.work)
    context.spawn("report", agent.report.run)
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
    left = set(known)  # of an earlier life of the task: gone, if they are not in the whole list
    complete = False
    async with aclosing(follow(context.store, kind)) as batches:  # type: ignore[type-var]
        async for changes in batches:
            async for obj in sliced(iter(changes.upserts)):
                known.add(object_key(obj))
                left.discard(object_key(obj))
                await put(obj)
            for key in [*changes.deletes, *(left if changes.complete else ())]:
                known.discard(key)
                remove(key)
            if changes.complete and not complete:
                complete, left = True, set()
                agent.complete(kind.kind)
            del changes  # up to a page of objects, and the next change may be long in coming


async def _policy(agent: PolicyAgent, obj: Object) -> None:
    if is_large(obj):
        agent.set_policy(await asyncio.to_thread(read_policy, obj, agent.cluster))
    else:
        agent.set_policy(read_policy(obj, agent.cluster))


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
        agent.set_identity(*found, unused=is_unused(obj))


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
                wanted = {claim.prefix for claim in changes.upserts}
                gone = [prefix for prefix in agent.ipcache.prefixes(claimant) if prefix not in wanted]
            else:
                gone = changes.deletes
            async for prefix in sliced(iter(gone)):
                agent.ipcache.remove(claimant, prefix)
            async for claim in sliced(_sound(context, claimant, changes.upserts)):
                agent.ipcache.put(claimant, claim)
            agent.wait_for_claims(claimant, changes.complete or reader.epoch == 0)


async def follow_api_servers(context: Context, agent: PolicyAgent) -> None:
    """Tell the agent where the API server is. A table that nobody writes has nothing to say."""
    reader = context.tables.reader(API_SERVERS)
    async with aclosing(reader.changes()) as batches:
        async for _ in batches:
            agent.set_api_servers(reader.rows.values())


def _sound(context: Context, claimant: str, claims: list[IpcacheClaim]) -> Iterator[IpcacheClaim]:
    """Claims whose prefix is one; the others are named in the log."""
    for claim in claims:
        try:
            address_of(claim.prefix)
        except ValueError as error:
            context.log.error("claim of an address left out", claimant=claimant, prefix=claim.prefix, reason=str(error))
        else:
            yield claim


async def upkeep(agent: PolicyAgent) -> None:
    """Forget, now and then, what nothing has used for a while."""
    unused: set[int] = set()
    while True:
        await asyncio.sleep(UPKEEP_SECONDS)
        unused = agent.retire(unused)
