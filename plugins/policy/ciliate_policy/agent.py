"""The plugin at work on a node: what it is told goes into the engine, what the engine says goes into the kernel.

Everything that is decided is realised in rounds, by one task. A new pod with a known identity and known policies does
not wait for a round. If a round fails, the next one begins with everything anew, as after a restart.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Iterator

from ciliate.context import Context
from ciliate.counters import Counters
from ciliate.model.api_server import ApiServer
from ciliate.model.endpoint import (
    ENDPOINT_POLICY_MAP,
    ENDPOINT_STAMPS_MAP,
    PEER_STAMPS_MAP,
    Endpoint,
)
from ciliate.model.identity import CLUSTER_SCOPE, LOCAL_SCOPE, Reserved
from ciliate.model.ipcache import IPCACHE_MAP, IpcacheClaim
from ciliate.model.policy import POLICY_MAP

from ciliate_policy.allocator import Allocator, Labels
from ciliate_policy.changes import Changes, EndpointPolicies, EngineOptions, LocalEndpoint
from ciliate_policy.cidrs import Prefix, network_of
from ciliate_policy.config import PolicyConfig
from ciliate_policy.engine import Engine
from ciliate_policy.identities import LocalIdentities, world_identity
from ciliate_policy.ipcache import ENDPOINTS, POLICY, Ipcache
from ciliate_policy.ipcache_writer import IpcacheWriter, content
from ciliate_policy.labels import CLUSTER, LabelFilter
from ciliate_policy.realise import Realised, Realiser
from ciliate_policy.records import Records
from ciliate_policy.report import Report
from ciliate_policy.rule_sets import FIRST, KEEP_UNUSED, RuleSets
from ciliate_policy.rules import CidrGroup, Policy, PolicyKey
from ciliate_policy.slices import sliced

WORLD = {"0.0.0.0/0": 4, "::/0": 6}
SOURCES = (
    "CiliumIdentity",
    "CiliumCIDRGroup",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "NetworkPolicy",
)
"""Kinds whose objects must all be known before anything is decided."""


class PolicyAgent:
    """One node's policy. Methods are called from one loop and never wait, except `work`."""

    def __init__(self, context: Context) -> None:
        config: PolicyConfig = context.config
        self.context = context
        self.config = config
        self.cluster = context.node.cluster
        self.records = Records(context.tables)
        self.allocator = Allocator(context.store)
        self.filter = LabelFilter(config.labels)
        self._open_maps()
        rule_sets, identities = self.records.rule_sets.rows, self.records.identities.rows
        self.rule_sets = RuleSets(rule_sets.values(), 0 if rule_sets else self._used_rule_set())
        options = EngineOptions(config.enable_policy, config.allow_localhost != "policy", config.ipv4, config.ipv6)
        known = [row for row in identities.values() if row.id in LOCAL_SCOPE]
        self.engine = Engine(options, LocalIdentities(known, 0 if identities else self._used_identity()))
        self.ipcache = Ipcache()
        self.endpoints: dict[int, Endpoint] = {}  # rows, by id
        self.waiting: dict[int, Endpoint] = {}  # rows that are to be entered into the engine
        self.report = Report(context)
        self._relevant: dict[tuple[str, ...], Labels] = {}
        self._prefixes: dict[int, list[str]] = {}
        self._missing: set[str] = {*SOURCES, ENDPOINTS}
        self._unclaimed: set[str] = set()
        self._changed: set[PolicyKey] = set()
        self._allocating: dict[Labels, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._known = asyncio.Event()
        self._realiser: Realiser | None = None
        self._writer: IpcacheWriter | None = None
        for prefix, version in WORLD.items():
            world = world_identity(version, config.ipv4, config.ipv6)
            self.claim(IpcacheClaim(prefix=prefix, identity=world))
        self.records.save_identities(self.engine.labels)
        context.health.not_ready(self._missing_text())

    def _open_maps(self) -> None:
        maps = self.context.maps
        self._policy_map = maps.open(POLICY_MAP, writable=True)
        self._ipcache_map = maps.open(IPCACHE_MAP, writable=True)
        self._slots = maps.open(ENDPOINT_POLICY_MAP, writable=True).mmap(writable=True)
        self._stamps = Counters(maps.open(ENDPOINT_STAMPS_MAP, writable=True))
        self._peer_stamps = Counters(maps.open(PEER_STAMPS_MAP, writable=True))

    def _used_rule_set(self) -> int:
        """Without rows, as after a loss: a number up to which entries in the kernel, or stored flows, may have them."""
        used = int(self._policy_map.items()[1]["rule_set"].max(initial=0))
        return used + KEEP_UNUSED if used >= FIRST else 0

    def _used_identity(self) -> int:
        """The same of local identities: until all is realised, a number must not mean what it has not meant before."""
        found = self._ipcache_map.items()[1]["identity"]
        return int(found[(found >= LOCAL_SCOPE.start) & (found < LOCAL_SCOPE.stop)].max(initial=0))

    @property
    def realiser(self) -> Realiser | None:
        """The writer of the policy maps, once everything is known."""
        return self._realiser

    # What is told

    def complete(self, source: str) -> None:
        """A source has told everything that there was at the start."""
        self._missing.discard(source)
        if not self._missing:
            self._known.set()
        else:
            self.context.health.not_ready(self._missing_text())

    def _missing_text(self) -> str:
        return f"waits for all of {', '.join(sorted(self._missing))}"

    def wait_for_claims(self, source: str, complete: bool) -> None:
        """Whether a table of claims has told everything: until all have, nothing is pruned from the ipcache."""
        if complete:
            self._unclaimed.discard(source)
        else:
            self._unclaimed.add(source)
        self.wake()

    def wake(self) -> None:
        """There is something to do for a round."""
        self._wake.set()

    def set_policy(self, policy: Policy) -> None:
        """A policy is new or has changed."""
        if self.engine.set_policy(policy):
            self._changed.add(policy.key)
            self.wake()

    def remove_policy(self, key: PolicyKey) -> None:
        """A policy is gone."""
        if self.engine.remove_policy(key):
            self._changed.add(key)
            self.wake()

    def set_group(self, group: CidrGroup) -> None:
        """A CIDR group is new or has changed."""
        self.engine.set_group(group)
        self.wake()

    def remove_group(self, name: str) -> None:
        """A CIDR group is gone."""
        self.engine.remove_group(name)
        self.wake()

    def set_api_servers(self, rows: Iterable[ApiServer]) -> None:
        """Where the cluster's API server is."""
        places = {row.address: row.place for row in rows}
        outside = [ipaddress.ip_network(address) for address, place in places.items() if place == "outside"]
        self.engine.set_api_servers("host" in places.values(), outside)
        self.records.save_identities({int(Reserved.HOST): self.engine.labels[Reserved.HOST]})
        self.wake()

    def set_identity(self, number: int, labels: Labels, unused: bool = False) -> None:
        """A number of the cluster stands for some labels. unused: the operator thinks that nobody has it."""
        self.allocator.learn(number, labels, unused)
        if unused and any(endpoint.identity == number for endpoint in self.engine.endpoints.values()):
            self.allocator.use(number)
        self.records.save_identities({number: labels})
        self.engine.set_identity(number, labels)
        self._reconsider(labels)
        self.wake()

    def remove_identity(self, number: int) -> None:
        """A number is free again. Pods of this node that have it get another."""
        labels = self.allocator.forget(number)
        if labels is None:
            return
        if any(endpoint.identity == number for endpoint in self.engine.endpoints.values()):
            self._reconsider(labels)  # the number keeps its meaning here until they have got one
        else:
            self._forget_identity(number)
        self.wake()

    def _forget_identity(self, number: int) -> None:
        self.engine.remove_identity(number)
        self.records.identities.delete(number)

    def _reconsider(self, labels: Labels) -> None:
        """Pods with these labels may have another number from now on: of several, the lowest."""
        wanted = self.allocator.known(labels)
        for number, endpoint in self.engine.endpoints.items():
            if endpoint.identity != wanted and self.engine.labels.get(endpoint.identity) == labels:
                self.waiting[number] = self.endpoints[number]

    def claim(self, claim: IpcacheClaim) -> None:
        """A prefix of this plugin's own."""
        self.records.claims.put(claim)
        self.ipcache.put(POLICY, claim)

    def set_endpoint(self, row: Endpoint) -> None:
        """A pod is there, or has changed. With nothing to be worked out for it, it is realised when this returns."""
        self.endpoints[row.id] = row
        self.waiting[row.id] = row
        if not self._known.is_set() or self._realiser is None or not self._admit(row):
            self.wake()

    def remove_endpoint(self, number: int) -> None:
        """A pod is gone."""
        self.endpoints.pop(number, None)
        self.waiting.pop(number, None)
        self.engine.remove_endpoint(number)
        for prefix in self._prefixes.pop(number, []):
            self.ipcache.remove(ENDPOINTS, prefix)
        self.records.endpoint_policies.delete(number)
        if self._realiser is not None:
            self._realiser.clear(number)
        self.wake()

    # Endpoints into the engine

    def _admit(self, row: Endpoint) -> bool:
        """The short way of a new pod: identity and policies are known and in the kernel. False: a round must do it."""
        assert self._realiser is not None
        if not self._enter(row):
            return False
        policies = self.engine.take_endpoint(row.id)
        if policies is None:
            return False
        if self._writer is None or not self._realiser.is_ready(policies):
            self.engine.put_back(policies)
            return False
        self._writer.write(0)
        done = Realised()
        self._realiser.point(Changes(endpoints={row.id: policies}), done)
        self._write_rows(done.endpoints.values())
        if self.engine.retired:
            self.wake()
        return True

    def _enter(self, row: Endpoint) -> bool:
        """Tell the engine of a pod. False: a round must settle it, or, which starts one, its identity be allocated."""
        labels = self.identity_labels(row.labels)
        identity = Reserved.INIT if not labels else self.allocator.known(labels)
        if identity is None or identity not in self.engine.labels:
            self._allocate(labels)
            return False
        self.allocator.use(identity)
        self.waiting.pop(row.id, None)
        settled = self.engine.set_endpoint(LocalEndpoint(row.id, identity, row.named_ports))
        if settled:
            self.engine.put_back(self.engine.realised[row.id])  # the row may be of another generation
        self._claim_addresses(row, identity)
        return settled

    def identity_labels(self, labels: tuple[str, ...]) -> Labels:
        """The identity-relevant ones; empty for a pod that is not known yet."""
        found = self._relevant.get(labels)
        if found is None:
            found = self.filter.identity_labels(labels)
            if found and not any(label.startswith("reserved:") for label in found):
                found = tuple(sorted({*found, f"k8s:{CLUSTER}={self.cluster}"}))
            if len(self._relevant) > 10_000:
                self._relevant.clear()
            self._relevant[labels] = found
        return found

    def _claim_addresses(self, row: Endpoint, identity: int) -> None:
        prefixes = [f"{row.ipv4}/32"] * bool(row.ipv4) + [f"{row.ipv6}/128"] * bool(row.ipv6)
        for prefix in self._prefixes.get(row.id, []):
            if prefix not in prefixes:
                self.ipcache.remove(ENDPOINTS, prefix)
        self._prefixes[row.id] = prefixes
        for prefix in prefixes:
            self.ipcache.put(ENDPOINTS, IpcacheClaim(prefix=prefix, identity=identity))

    def _allocate(self, labels: Labels) -> None:
        if labels in self._allocating:
            return
        task = asyncio.get_running_loop().create_task(self._allocate_now(labels))
        self._allocating[labels] = task
        task.add_done_callback(lambda _: self._allocating.pop(labels, None))

    async def _allocate_now(self, labels: Labels) -> None:
        delay = 0.05
        while True:
            try:
                number = await self.allocator.allocate(labels)
            except Exception as error:
                self.context.health.not_ready(f"{type(error).__name__}: {error}", "identity allocation")
                await asyncio.sleep(delay)
                delay = min(2 * delay, 5.0)
                continue
            self.context.health.drop("identity allocation")
            self.set_identity(number, labels)
            return

    # Rounds

    async def work(self) -> None:
        """Realise what is decided, for ever. Begins, in every life of the task, with all that there is."""
        self._realiser = self._writer = None
        await self._known.wait()
        left = await asyncio.to_thread(content, self._ipcache_map)
        await self._take_in()
        self.rule_sets.renew(self.records.rule_sets.rows)
        self._realiser = Realiser(
            self.engine, self._policy_map, self._slots, self._stamps, self.rule_sets, self.records.save_rule_sets,
            self.config.audit,
        )  # fmt: skip
        self._writer = IpcacheWriter(self.ipcache, self._ipcache_map, self._peer_stamps, self.records.ipcache, left)
        everything = self.engine.everything()
        self._changed |= self.engine.policies.keys() | self.records.policies()
        await self._round(everything)
        known = {str(network_of(prefix)) for prefix in self.engine.cidrs.regions} | set(WORLD)
        for number in self.records.drop_leftovers(self.engine, self.endpoints, known):
            self._realiser.clear(number)
        self.context.health.ready()
        while True:
            await self._wake.wait()
            await self._round(Changes())

    async def _take_in(self) -> None:
        """Tell the engine of the pods that wait, and settle what is dirty."""
        async for row in sliced(iter(list(self.waiting.values()))):
            self._enter(row)
        async for _ in sliced(self._settling()):
            pass

    async def _round(self, changes: Changes) -> None:
        assert self._realiser is not None
        self._wake.clear()
        await self._take_in()
        snapshot = {key: self.engine.policies.get(key) for key in self._changed}
        revision, retired = self.engine.revision, self.engine.retired
        self._changed.clear()
        done = Realised()
        await self._realise(changes.with_later(self.engine.take()), done)
        self._write_rows(done.endpoints.values())
        await self._write_revisions(snapshot, revision)
        if retired:
            async for _ in sliced(self.engine.release_retired(retired)):
                pass
            after = Realised()
            await self._realise(self.engine.take(), after)
            self._write_rows(after.endpoints.values())
        async for _ in sliced(self._realiser.tidy(done)):
            pass
        if not self.waiting:  # a pod without its new identity still has the policies of an earlier life
            async for _ in sliced(self._realiser.prune(done)):
                pass
        await self._write_claims()
        self._tidy_ipcache()

    async def _realise(self, changes: Changes, done: Realised) -> None:
        """Entries, then addresses, then endpoints: at no time does a packet meet an identity that a policy lacks."""
        assert self._realiser is not None
        self.records.save_identities(changes.identities)
        async for _ in sliced(self._realiser.write_entries(changes, done)):
            pass
        self._write_ipcache(changes.prefixes)
        self._realiser.point(changes, done)

    def _settling(self) -> Iterator[None]:
        while self.engine.dirty:
            yield from self.engine.settling(next(iter(self.engine.dirty)))
            yield

    def _write_ipcache(self, prefixes: dict[Prefix, int | None]) -> None:
        """Write what policies and endpoints rely on; what others claim comes at the end of a round."""
        assert self._writer is not None
        with self.records.commit():
            self._claim_prefixes(prefixes)
            self._writer.write(0)

    async def _write_claims(self) -> None:
        assert self._writer is not None
        more = True
        while more:
            with self.records.commit():
                more = self._writer.write()
            await asyncio.sleep(0)

    def _claim_prefixes(self, prefixes: dict[Prefix, int | None]) -> None:
        for prefix, identity in prefixes.items():
            text = str(network_of(prefix))
            if identity is None:
                self.records.claims.delete(text)
                self.ipcache.remove(POLICY, text)
            else:
                self.claim(IpcacheClaim(prefix=text, identity=identity))

    def _tidy_ipcache(self) -> None:
        assert self._writer is not None
        if not (self._writer.pruned or self._unclaimed or self.ipcache.pending):
            self._writer.prune()
            self.records.ipcache.complete()

    def _write_rows(self, pointed: Iterable[EndpointPolicies]) -> None:
        assert self._realiser is not None
        self.records.write_endpoints(pointed, self.endpoints, self._realiser, self.rule_sets, self.engine.revision)

    async def _write_revisions(self, snapshot: dict[PolicyKey, Policy | None], revision: int) -> None:
        async for key, policy in sliced(iter(snapshot.items())):
            if policy is None:
                self.records.revisions.delete((key.kind, key.namespace, key.name))
            else:
                self.records.write_policy(policy, revision, len(self.engine.selected(key)))
            self.report.note(key, policy)
        self.report.publish()

    # Upkeep

    def retire(self, candidates: set[int]) -> set[int]:
        """Forget local identities that nothing has had since the last call, and rule sets beyond count."""
        for number in self.engine.retire_local(candidates):
            self.records.identities.delete(number)
        used = {endpoint.identity for endpoint in self.engine.endpoints.values()}
        for number in [n for n in self.engine.labels if n in CLUSTER_SCOPE and not self.allocator.is_known(n)]:
            if number not in used:
                self._forget_identity(number)
        if self._realiser is not None:
            with self.records.commit():
                for number in self.rule_sets.prune(
                    self._realiser.rule_sets_in_use() | self.records.default_rule_sets()
                ):
                    self.records.rule_sets.delete(number)
        self.wake()
        return set(self.engine.cidrs.unused())
