"""The engine: everything that decides, and nothing that acts. It is told what there is and says what must be realised.

Told: policies, CIDR groups, identities, this node's endpoints. Said, as `Changes`: which policy each endpoint has now,
which entries of policies in use have changed, which identity each prefix outside the cluster has. Work that grows with
the number of endpoints is done an identity at a time (`settle`), so that the caller can slice it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import cast

from ciliate.model.base import IPNetwork
from ciliate.model.identity import Reserved
from ciliate.model.policy import Direction, Rule

from ciliate_policy.changes import Changes, Defaults, EndpointPolicies, EngineOptions, LocalEndpoint, Refreshed
from ciliate_policy.cidr_identities import CidrIdentities
from ciliate_policy.cidrs import Prefix
from ciliate_policy.identities import LocalIdentities, reserved_identities
from ciliate_policy.index import SelectorIndex
from ciliate_policy.resolve import (
    LOCALHOST_RULE,
    CompiledElement,
    NamedPorts,
    Resolved,
    ResolvedKey,
    default_rule,
)
from ciliate_policy.rule_sets import first_rules
from ciliate_policy.rules import PROTOCOLS, CidrGroup, CidrSelector, Element, Policy, PolicyKey
from ciliate_policy.selectors import LabelSelector, exists, make_selector

INIT_LABEL = Reserved.INIT.label
_MANY = 200
"""Elements of rules from which on policies are worked out before their endpoints are settled: a few milliseconds."""
_TRIES = 8


@dataclass(frozen=True)
class _Rule:
    subject: LabelSelector
    defaults: tuple[Rule | None, Rule | None]  # by direction: of its default deny
    elements: tuple[tuple[int, ...], tuple[int, ...]]  # numbers, by direction


@dataclass(frozen=True)
class _Matching:
    """What is about a local identity, by direction."""

    elements: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    enforcing: tuple[bool, bool] = (False, False)
    defaults: Defaults = ((), ())

    @property
    def size(self) -> int:
        """Elements of both directions."""
        return len(self.elements[0]) + len(self.elements[1])


class Engine:
    """Policies, identities and endpoints, and what follows from them."""

    def __init__(self, options: EngineOptions | None = None, local: LocalIdentities | None = None) -> None:
        self.options = options or EngineOptions()
        self.policies: dict[PolicyKey, Policy] = {}
        self.endpoints: dict[int, LocalEndpoint] = {}
        self.realised: dict[int, EndpointPolicies] = {}
        self.labels: dict[int, tuple[str, ...]] = {}
        self.dirty: set[int] = set()  # local identities whose endpoints must be settled
        self.revision = 0
        self._changes = Changes()
        self._subjects = SelectorIndex()  # over local identities
        self._peers = SelectorIndex()  # over all identities, for selectors of policies in use
        self._rules: dict[PolicyKey, list[_Rule]] = {}
        self._rules_of: defaultdict[LabelSelector, list[_Rule]] = defaultdict(list)
        self._elements: dict[int, CompiledElement] = {}
        self._numbers = itertools.count(1)
        self._cidr_of: dict[LabelSelector, str] = {}  # to the label of the CIDR selector
        self._by_identity: defaultdict[int, set[int]] = defaultdict(set)
        self._resolved: dict[ResolvedKey, Resolved] = {}
        self._uses: defaultdict[ResolvedKey, int] = defaultdict(int)
        self._building: dict[Resolved, set[int]] = {}  # with the identities that have changed meanwhile
        self._built: dict[ResolvedKey, Resolved] = {}  # for who settles next
        self._retired: list[EndpointPolicies] = []
        self._using: defaultdict[LabelSelector, set[Resolved]] = defaultdict(set)
        self.cidrs = CidrIdentities(local or LocalIdentities(), self.options.ipv4, self.options.ipv6)
        localhost = CompiledElement(
            default_rule(LOCALHOST_RULE), False, (make_selector([exists("reserved:host")]),), None
        )
        self._localhost = self._number(localhost)
        for number, labels in reserved_identities(self.options.ipv4, self.options.ipv6).items():
            self.set_identity(number, labels)

    def everything(self) -> Changes:
        """All that must be in the kernel, for one who has forgotten what is there. What was to be taken is in it."""
        self._changes = Changes()
        return Changes(
            endpoints=dict(self.realised),
            created=list(self._resolved.values()),
            prefixes=dict(self.cidrs.regions),
            identities=self.cidrs.identities(),
        )

    def take_endpoint(self, number: int) -> EndpointPolicies | None:
        """An endpoint's policies, if nothing else is to be realised for it: nothing of its identity is pending."""
        policies = self.realised[number]
        if any(one.identity == policies.endpoint.identity for one in self._changes.refreshed):
            return None
        self._changes.endpoints.pop(number, None)
        return policies

    def put_back(self, policies: EndpointPolicies) -> None:
        """What `take_endpoint` gave is not realised after all."""
        self._changes.endpoints[policies.endpoint.id] = policies

    def take(self) -> Changes:
        """What is to be realised since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    # Policies

    def set_policy(self, policy: Policy) -> bool:
        """Add or replace a policy; whether anything in it is new. Its endpoints become dirty."""
        if self.policies.get(policy.key) == policy:
            return False
        self._forget_rules(policy.key)
        self.policies[policy.key] = policy
        compiled = [
            _Rule(rule.subject, policy.default_rules(rule), self._compile(rule.elements))
            for rule in policy.rules
            if rule.subject is not None
        ]
        self._rules[policy.key] = compiled
        for rule in compiled:
            self._subjects.acquire(rule.subject)
            self._rules_of[rule.subject].append(rule)
            self.dirty |= self._subjects.ids(rule.subject)
        self.revision += 1
        return True

    def remove_policy(self, key: PolicyKey) -> bool:
        """Forget a policy; whether there was one."""
        if self.policies.pop(key, None) is None:
            return False
        self._forget_rules(key)
        self.revision += 1
        return True

    def selected(self, key: PolicyKey) -> set[int]:
        """The endpoints that a policy is about."""
        identities = {i for rule in self._rules.get(key, ()) for i in self._subjects.ids(rule.subject)}
        return {endpoint for identity in identities for endpoint in self._by_identity[identity]}

    def _forget_rules(self, key: PolicyKey) -> None:
        for rule in self._rules.pop(key, ()):
            self.dirty |= self._subjects.ids(rule.subject)
            self._subjects.release(rule.subject)
            self._rules_of[rule.subject].remove(rule)
            if not self._rules_of[rule.subject]:
                del self._rules_of[rule.subject]
            for number in itertools.chain(*rule.elements):
                del self._elements[number]

    def _compile(self, elements: Iterable[Element]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        numbers: tuple[list[int], list[int]] = ([], [])
        for element in elements:
            peers = None if element.peers is None else tuple(self._selector(peer) for peer in element.peers)
            compiled = CompiledElement(element.rule, element.deny, peers, element.ports)
            numbers[element.direction].append(self._number(compiled))
        return tuple(numbers[0]), tuple(numbers[1])

    def _number(self, element: CompiledElement) -> int:
        number = next(self._numbers)
        self._elements[number] = element
        return number

    def _selector(self, peer: LabelSelector | CidrSelector) -> LabelSelector:
        if isinstance(peer, LabelSelector):
            return peer
        label = self.cidrs.label(peer)
        selector = make_selector([exists(label)])
        self._cidr_of[selector] = label
        return selector

    # CIDR groups

    def set_group(self, group: CidrGroup) -> None:
        """Add or replace a CIDR group."""
        self._apply_regions(self.cidrs.set_group(group))

    def remove_group(self, name: str) -> None:
        """Forget a CIDR group: it has no members now."""
        self._apply_regions(self.cidrs.remove_group(name))

    def set_api_servers(self, on_host: bool, outside: Iterable[IPNetwork]) -> None:
        """Where the API server is, if not on another node: this host, or addresses outside, are it too."""
        host = {Reserved.HOST.label, Reserved.KUBE_APISERVER.label} if on_host else {Reserved.HOST.label}
        if set(self.labels[Reserved.HOST]) != host:
            self.set_identity(Reserved.HOST, tuple(sorted(host)))
        self._apply_regions(self.cidrs.mark(Reserved.KUBE_APISERVER.label, outside))

    def _apply_regions(self, touched: Set[Prefix]) -> None:
        update = self.cidrs.update(touched)
        self._changes.prefixes.update(update.prefixes)
        self._changes.identities.update(update.identities)
        for number, labels in update.labels.items():
            self.set_identity(number, labels)

    # Identities

    def set_identity(self, number: int, labels: tuple[str, ...]) -> None:
        """Add an identity, or give it other labels."""
        fresh = number not in self._peers
        self.labels[number] = labels
        self._refresh(number, self._peers.add(number, labels), fresh)

    def remove_identity(self, number: int) -> None:
        """Forget an identity that nobody has any more."""
        self.labels.pop(number, None)
        self._refresh(number, self._peers.remove(number), fresh=False)

    def retire_local(self, numbers: Iterable[int]) -> list[int]:
        """Forget those of some identities of the local scope that no region has any more; which they were."""
        gone = sorted(set(self.cidrs.unused()).intersection(numbers))
        for number in gone:
            self.cidrs.free(number)
            self.remove_identity(number)
        return gone

    def _refresh(self, number: int, selectors: Iterable[LabelSelector], fresh: bool) -> None:
        affected = {resolved for selector in selectors for resolved in self._using.get(selector, ())}
        matching = self._peers.matching(number) if affected else ()
        for resolved in affected:
            if resolved in self._building:
                self._building[resolved].add(number)
                continue
            before, after = resolved.refresh(number, matching)
            if before != after:
                self._changes.refreshed.append(Refreshed(resolved, number, before, after, fresh))

    # Endpoints

    def set_endpoint(self, endpoint: LocalEndpoint) -> bool:
        """Add an endpoint, or give it another identity or other ports. The identity is known.

        It is settled at once, unless that is much work: then its identity is dirty, and the answer False.
        """
        old = self.endpoints.get(endpoint.id)
        if old is not None and old != endpoint:
            self._leave(old)
        self.endpoints[endpoint.id] = endpoint
        self._by_identity[endpoint.identity].add(endpoint.id)
        if endpoint.identity not in self._subjects:
            self._subjects.add(endpoint.identity, self.labels[endpoint.identity])
        if endpoint.named_ports:
            self._refresh_names(endpoint.identity)
        if old is not None and old.named_ports:
            self._refresh_names(old.identity)
        matching = self._matching(endpoint.identity)
        if matching.size > _MANY and not self._resolved.keys() >= set(self._keys(endpoint.id, matching)):
            self.dirty.add(endpoint.identity)
            return False
        self._point(endpoint, matching)
        return True

    def remove_endpoint(self, number: int) -> None:
        """Forget an endpoint."""
        endpoint = self.endpoints.pop(number, None)
        if endpoint is None:
            return
        self._leave(endpoint)
        if endpoint.named_ports:
            self._refresh_names(endpoint.identity)
        policies = self.realised.pop(number, None)
        if policies is not None:
            self._retired.append(policies)
        self._changes.endpoints.pop(number, None)

    def settle(self, identity: int) -> None:
        """Work out the policies of all endpoints of a local identity."""
        self.dirty.discard(identity)
        if identity not in self._by_identity:
            return
        matching = self._matching(identity)
        for number in sorted(self._by_identity[identity]):
            self._point(self.endpoints[number], matching)

    def settling(self, identity: int) -> Iterator[None]:
        """The same in steps: what grows with the rules is done before, and whatever changes meanwhile is seen to."""
        for _ in range(_TRIES):  # rules may change meanwhile; then at once, so that it comes to an end
            if (key := next(iter(self._lacking(identity)), None)) is None:
                break
            self._built[key] = yield from self._build(key)
        self.settle(identity)
        while self._built:
            yield from self._let_go(self._built.popitem()[1])

    def _lacking(self, identity: int) -> set[ResolvedKey]:
        """The large policies of an identity's endpoints that are not worked out."""
        numbers = self._by_identity.get(identity, ())
        matching = self._matching(identity) if numbers else _Matching()
        if matching.size <= _MANY:
            return set()
        keys = {key for number in numbers for key in self._keys(number, matching)}
        return keys - self._resolved.keys() - self._built.keys()

    def settle_all(self) -> None:
        """Settle everything that is dirty, at once, and let go of what was before."""
        while self.dirty:
            self.settle(next(iter(self.dirty)))
        for _ in self.release_retired(self.retired):
            pass

    def _leave(self, endpoint: LocalEndpoint) -> None:
        mates = self._by_identity[endpoint.identity]
        mates.discard(endpoint.id)
        if not mates:
            del self._by_identity[endpoint.identity]
            self._subjects.remove(endpoint.identity)
            self.dirty.discard(endpoint.identity)

    def _refresh_names(self, identity: int) -> None:
        """An identity's port names may mean something else now, in egress policies that use names."""
        for pending in [pending for one, pending in self._building.items() if one.uses_peer_names]:
            pending.add(identity)
        for resolved in [one for one in self._resolved.values() if one.uses_peer_names]:
            before, after = resolved.refresh(identity, self._peers.matching(identity))
            if before != after:
                self._changes.refreshed.append(Refreshed(resolved, identity, before, after, fresh=False))

    def _matching(self, identity: int) -> _Matching:
        mode = self.options.enable_policy
        always = mode == "always" or INIT_LABEL in self.labels[identity]
        elements: tuple[list[int], list[int]] = ([], [])
        defaults: tuple[list[Rule], list[Rule]] = ([], [])
        if mode == "never":
            return _Matching()
        for selector in self._subjects.matching(identity):
            for rule in self._rules_of[selector]:
                for direction in Direction:
                    elements[direction].extend(rule.elements[direction])
                    if (default := rule.defaults[direction]) is not None:
                        defaults[direction].append(default)
        enforcing = (always or bool(defaults[0]), always or bool(defaults[1]))
        if enforcing[Direction.INGRESS] and self.options.allow_localhost:
            elements[Direction.INGRESS].append(self._localhost)
        ingress, egress = (tuple(sorted(numbers)) for numbers in elements)
        return _Matching((ingress, egress), enforcing, (first_rules(defaults[0]), first_rules(defaults[1])))

    def _keys(self, endpoint: int, matching: _Matching) -> tuple[ResolvedKey, ResolvedKey]:
        """What an endpoint's policies are known by."""
        names = self._own_names(self.endpoints[endpoint], matching.elements[Direction.INGRESS])
        (ingress, egress), (in_mode, out_mode) = matching.elements, matching.enforcing
        return (
            ResolvedKey(Direction.INGRESS, in_mode, ingress, names),
            ResolvedKey(Direction.EGRESS, out_mode, egress),
        )

    def _point(self, endpoint: LocalEndpoint, matching: _Matching) -> None:
        ingress, egress = (self._acquire(key) for key in self._keys(endpoint.id, matching))
        policies = EndpointPolicies(endpoint, ingress, egress, matching.defaults)
        old = self.realised.get(endpoint.id)
        self.realised[endpoint.id] = policies
        if old is not None:
            self._retired.append(old)
        if old != policies:
            self._changes.endpoints[endpoint.id] = policies

    def _own_names(self, endpoint: LocalEndpoint, ingress: tuple[int, ...]) -> tuple[tuple[str, int, int], ...]:
        if not endpoint.named_ports:
            return ()
        asked = {(one.name, one.protocol) for number in ingress for one in self._elements[number].named}
        found = {(port.name.lower(), PROTOCOLS.get(port.protocol, 0), port.port) for port in endpoint.named_ports}
        return tuple(sorted(one for one in found if one[:2] in asked))

    def _peer_names(self, identity: int) -> NamedPorts:
        names: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        for number in self._by_identity.get(identity, ()):
            for port in self.endpoints[number].named_ports:
                names[port.name.lower(), PROTOCOLS.get(port.protocol, 0)].add(port.port)
        return names

    def _holders(self, name: str, protocol: int) -> Set[int]:
        return {identity for identity in self._by_identity if (name, protocol) in self._peer_names(identity)}

    # Resolved policies in use

    @property
    def resolved(self) -> Iterable[Resolved]:
        """All policies in use."""
        return self._resolved.values()

    def in_use(self, resolved: Resolved) -> bool:
        """Whether an endpoint has this policy."""
        return self._resolved.get(resolved.key) is resolved

    def users(self, changed: Set[Resolved]) -> list[int]:
        """The endpoints that have one of some policies."""
        return [n for n, one in self.realised.items() if one.ingress in changed or one.egress in changed]

    def _acquire(self, key: ResolvedKey) -> Resolved:
        self._uses[key] += 1
        known = self._resolved.get(key)
        if known is not None:
            return known
        resolved = self._built.pop(key, None) or _at_once(self._build(key))
        self._resolved[key] = resolved
        self._changes.created.append(resolved)
        return resolved

    def _build(self, key: ResolvedKey) -> Generator[None, None, Resolved]:
        """A policy, worked out; it follows its selectors from now on."""
        elements = tuple(self._elements[number] for number in key.elements)
        resolved = Resolved(key, elements, self._peers.ids, self._peer_names, self._holders)
        yield from resolved.index()
        changed = self._building[resolved] = set[int]()
        try:
            for peer in resolved.peers:
                self._peers.acquire(peer)
                self._using[peer].add(resolved)
                if peer in self._cidr_of:
                    self._apply_regions(self.cidrs.acquire(self._cidr_of[peer]))
                yield
            changed.clear()
            yield from resolved.resolve()
        finally:
            del self._building[resolved]
        for number in changed:
            resolved.refresh(number, self._peers.matching(number))
        return resolved

    @property
    def retired(self) -> int:
        """How many pairs of policies endpoints have had before and are still kept."""
        return len(self._retired)

    def release_retired(self, count: int) -> Iterator[None]:
        """Let go, in steps, of the first so many of them, which the kernel points at no more.

        Until then they count: an address that old and new rules cover has an identity that is in both policies, so that
        no packet is lost between the change of the ipcache and that of the endpoint.
        """
        gone, self._retired = self._retired[:count], self._retired[count:]
        for policies in gone:
            for resolved in (policies.ingress, policies.egress):
                self._uses[resolved.key] -= 1
                if not self._uses[resolved.key]:
                    del self._uses[resolved.key], self._resolved[resolved.key]
                    yield from self._let_go(resolved)
            yield

    def _let_go(self, resolved: Resolved) -> Iterator[None]:
        for peer in resolved.peers:
            self._using[peer].discard(resolved)
            if not self._using[peer]:
                del self._using[peer]
            self._peers.release(peer)
            if peer in self._cidr_of:
                self._apply_regions(self.cidrs.release(self._cidr_of[peer]))
            yield


def _at_once(steps: Generator[None, None, Resolved]) -> Resolved:
    """What a generator returns, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Resolved, end.value)
